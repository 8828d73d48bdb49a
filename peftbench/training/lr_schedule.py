"""The learning-rate schedule."""

from peftbench.core.configs import TrainingConfig


def learning_rate(config: TrainingConfig, fraction: float) -> float:
    """The learning rate when a fraction of the budget is spent.

    It rises linearly during the warm-up, and then stays or falls linearly to 0.
    """
    if fraction < config.warmup:
        return config.lr * fraction / config.warmup
    if config.schedule == "constant":
        return config.lr
    return config.lr * max(0.0, (1 - fraction) / max(1 - config.warmup, 1e-12))
