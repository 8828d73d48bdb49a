"""One module and one template of scripts for each scheduler; `cluster.base` finds them by name."""
