"""Passes that change nothing: kernels are chosen and memory is taken before the clock runs."""

from torch.utils.flop_counter import FlopCounterMode

from peftbench.batches import Feed, View, micro_batches
from peftbench.encoder import Batch


def warm_up(view: View, micro: int | None, feed: Feed) -> tuple[float, float]:
    """Pass the shortest and the longest batch through, changing nothing.

    Kernels are chosen and memory is taken before the clock runs, and matrix products are counted.
    On a CPU the first run of a kind does that for all runs of a process: passes of the others
    would leave their training seconds as they are.

    Returns:
        FLOPs of a training step for each padded token, and for each token × length (attention).
    """
    counts = []
    for batch in feed.extremes:
        first = next(micro_batches(batch, micro or len(batch["labels"])))
        rows, length = first["input_ids"].shape
        counts.append((length, _flops(view, first) / (rows * length)))
    (short, few), (long, many) = counts[0], counts[-1]
    slope = (many - few) / (long - short) if long > short else 0.0
    return many - slope * long, slope


def _flops(view: View, batch: Batch) -> int:
    """FLOPs of a forward and backward pass, which is made; counted for the first run of a kind."""
    encoder = view.encoder
    trained = sorted((name, *p.shape) for name, p in encoder.trained().items())
    shape = tuple(batch["input_ids"].shape)
    kind = repr((view.method, encoder.module, view.accelerator.mixed_precision, trained, shape))
    counted = encoder.backbone[0].flops
    if kind not in counted:
        with FlopCounterMode(display=False) as counter:
            _pass(view, batch)
        counted[kind] = counter.get_total_flops()
    elif view.device.type != "cpu":
        _pass(view, batch)
    return counted[kind]


def _pass(view: View, batch: Batch) -> None:
    encoder, accelerator = view.encoder, view.accelerator
    encoder.train()
    moved = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    with accelerator.autocast():
        loss = view.method.loss(encoder, moved)
    accelerator.backward(loss)
    encoder.zero_grad(set_to_none=True)
