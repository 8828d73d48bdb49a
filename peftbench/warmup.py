"""Passes that change nothing: kernels are chosen and memory is taken before the clock runs."""

from torch.utils.flop_counter import FlopCounterMode

from peftbench.batches import Feed, View, micro_batches


def warm_up(view: View, micro: int | None, feed: Feed) -> tuple[float, float]:
    """Pass the shortest and the longest batch through, changing nothing.

    Kernels are chosen and memory is taken before the clock runs, and matrix products are counted.

    Returns:
        FLOPs of a training step for each padded token, and for each token × length (attention).
    """
    encoder, accelerator = view.encoder, view.accelerator
    encoder.train()
    counts = []
    for batch in feed.extremes:
        size = micro or len(batch["labels"])
        first = next(micro_batches(batch, size))
        moved = {name: tensor.to(accelerator.device) for name, tensor in first.items()}
        with FlopCounterMode(display=False) as counter:
            with accelerator.autocast():
                loss = view.method.loss(encoder, moved)
            accelerator.backward(loss)
        encoder.zero_grad(set_to_none=True)
        rows, length = first["input_ids"].shape
        counts.append((length, counter.get_total_flops() / (rows * length)))
    (short, few), (long, many) = counts[0], counts[-1]
    slope = (many - few) / (long - short) if long > short else 0.0
    return many - slope * long, slope
