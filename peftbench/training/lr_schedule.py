"""The learning-rate schedule."""

from peftbench.core.configs import TrainingConfig


def learning_rate(config: TrainingConfig, fraction: float, step: float) -> float:
    """The learning rate of the next step.

    It rises linearly during the warm-up, and then stays or falls linearly to 0. With a budget of
    seconds a warm-up of steps is known as a share of the budget only by the pace so far.

    Args:
        config: the schedule, its warm-up and the peak.
        fraction: of the budget that is spent, to the middle of the step.
        step: the steps that are done and half of the next one.
    """
    warmup: float = config.warmup_steps
    if warmup >= 1:
        if step < warmup:
            return config.lr * step / warmup
        warmup *= fraction / step  # as a share, as below
    elif fraction < warmup:
        return config.lr * fraction / warmup
    if config.lr_scheduler_type == "constant":
        return config.lr
    return config.lr * max(0.0, (1 - fraction) / max(1 - warmup, 1e-12))
