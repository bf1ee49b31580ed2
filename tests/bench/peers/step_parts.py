"""Where the time of a training step goes: seconds of its parts, and how near their matrix products are to the peak."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from torch.profiler import ProfilerActivity, profile

from vidmae.runs import cost
from vidmae.settings.sizes import ModelShape

Parts = dict[str, dict[str, float]]

PARTS = {  # operators of torch, by the beginnings of their names; the first that fits counts
    "attention": ("aten::_scaled_dot_product", "aten::bmm", "aten::_softmax", "aten::baddbmm"),
    "linear layers": ("aten::mm", "aten::addmm", "aten::mkldnn_linear", "aten::linear"),
    "patch convolution": ("aten::mkldnn_convolution", "aten::convolution", "aten::conv3d", "aten::slow_conv"),
    "GELU": ("aten::gelu",),
    "norms": ("aten::native_layer_norm",),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::index", "aten::gather", "aten::scatter", "aten::embedding",
                         "aten::clone", "aten::reshape", "aten::contiguous"),
    "sums and residuals": ("aten::add", "aten::sum", "aten::sub", "aten::mul", "aten::div", "aten::mse", "aten::pow",
                           "aten::mean"),
    "rest": ("",),
}


def parts_of(step: Callable[[], object], shape: ModelShape, batch: int, peak_flops: float, *, textbook: bool,
             ) -> Parts:
    """Profile one step.

    Args:
        step: Does it.
        shape: The model's shape.
        batch: Clips of the step.
        peak_flops: This machine's rate of a large product, FLOP/s.
        textbook: Whether all tokens are embedded and predicted.
    Returns:
        Part -> `s`, its seconds; for linear layers and attention `of_peak`, too: the FLOPs of the products that the
        mathematics needs, per second, as a share of the peak. A fused backward pass computes the scores once more, which
        is not counted.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        began = time.process_time()
        step()
        spent_s = time.process_time() - began
    parts: Parts = {part: {"s": 0.0} for part in PARTS}
    for event in profiler.key_averages():
        part = next(part for part, names in PARTS.items() if event.key.startswith(names))
        parts[part]["s"] += event.self_cpu_time_total / 1e6
    scale = spent_s / sum(each["s"] for each in parts.values())  # the profiler has wall time: other load would count
    for each in parts.values():
        each["s"] *= scale
    attention = batch * attention_flops(shape)
    convolved = 4 * shape.num_tokens * shape.patch_dim * shape.embed_dim * batch if textbook else 0
    linear = batch * cost.train_flops_per_clip(shape, textbook=textbook) - attention - convolved
    for part, flops in (("attention", attention), ("linear layers", linear)):
        parts[part]["of_peak"] = flops / parts[part]["s"] / peak_flops
    return parts


def median_parts(found: Sequence[Parts]) -> Parts:
    """The median over several steps of everything that `parts_of` gives."""
    return {part: {key: statistics.median(each[part][key] for each in found) for key in values}
            for part, values in found[0].items()}


def attention_flops(shape: ModelShape) -> float:
    """FLOPs of the scores and of what they weigh, forward and backward, of one clip."""
    encoder = shape.depth * (1 + shape.num_kept) ** 2 * shape.embed_dim
    decoder = shape.decoder_depth * (1 + shape.num_kept + shape.num_rebuilt) ** 2 * shape.decoder_embed_dim
    return 12.0 * (encoder + decoder)
