"""Passes that change nothing: kernels are chosen and memory is taken before the clock runs."""

from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from peftbench.batches import Feed, micro_batches
from peftbench.encoder import Encoder
from peftbench.method import Method


def warm_up(
    encoder: Encoder, method: Method, micro: int | None, feed: Feed, accelerator: Accelerator
) -> tuple[float, float]:
    """Pass the shortest and the longest batch through, changing nothing.

    Kernels are chosen and memory is taken before the clock runs, and matrix products are counted.

    Returns:
        FLOPs of a training step for each padded token, and for each token × length (attention).
    """
    encoder.train()
    counts = []
    for batch in feed.extremes:
        size = micro or len(batch["labels"])
        first = next(micro_batches(batch, size))
        moved = {name: tensor.to(accelerator.device) for name, tensor in first.items()}
        with FlopCounterMode(display=False) as counter:
            with accelerator.autocast():
                loss = method.loss(encoder, moved)
            accelerator.backward(loss)
        encoder.zero_grad(set_to_none=True)
        rows, length = first["input_ids"].shape
        counts.append((length, counter.get_total_flops() / (rows * length)))
    (short, few), (long, many) = counts[0], counts[-1]
    slope = (many - few) / (long - short) if long > short else 0.0
    return many - slope * long, slope
