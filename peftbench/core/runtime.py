"""How and where jobs are executed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RuntimeConfig:
    """How and where runs are executed; nothing that may change a score.

    Attributes:
        device: "auto", "cpu" or "cuda"; which GPU is the environment's business.
        threads: of the CPU; None is torch's choice.
        data_root: a folder of data sets in the hub's layout; None is the hub.
        save_weights: return the trained weights, to be kept.
        minutes: between checkpoints of a long training.
        deterministic: use deterministic kernels on a GPU, which may cost a third of the speed.
        curve_part: of the reporting split that evaluations during training look at, a fixed
            stratified part; the score at the end is of all of it.
        processes: that execute one run together, this being one of them.
        pack: runs that a worker trains at a time; 1 is one after the other.
        trial: whether runs are trials: they are scored on what they hold out, and nothing that is
            reported is read.
    """

    device: str = "auto"
    threads: int | None = None
    data_root: str | None = None
    save_weights: bool = False
    minutes: float = 10.0
    deterministic: bool = False
    curve_part: float = 1.0
    processes: int = 1
    pack: int = 1
    trial: bool = False
