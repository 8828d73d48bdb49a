"""Pretrained weights and the model that a run adapts."""
