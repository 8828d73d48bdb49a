"""The look of all figures, and the plots that several reports share."""
