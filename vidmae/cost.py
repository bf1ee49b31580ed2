"""What a model costs before it runs: parameters, FLOPs, memory, GPU-hours. Stdlib only; the launcher prints these.

FLOPs are those of matrix products, two per multiply-add; a backward pass is twice the forward one. Letters: L tokens,
K kept, D width, d decoder width, P pixel values of a patch.
"""

from __future__ import annotations

from vidmae.sizes import MLP_RATIO, ModelShape

GIB = 2**30

GPU_PEAK_TFLOPS = {  # dense 16-bit matrix products, from the vendors' data sheets; the first name that is found counts
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "GH200": 989.0, "A100": 312.0, "A800": 312.0,
    "L40S": 362.0, "L40": 181.0, "A40": 149.7, "A30": 165.0, "A10": 125.0, "RTX 6000 Ada": 364.0, "RTX A6000": 154.8,
    "4090": 165.2, "3090": 71.0, "V100": 125.0, "T4": 65.0, "MI300X": 1307.0, "MI250": 181.0,
}


def gpu_peak_tflops(name: str) -> float | None:
    """Peak 16-bit TFLOP/s of a GPU by its name; None where it is not in the table."""
    return next((peak for fragment, peak in GPU_PEAK_TFLOPS.items() if fragment.lower() in name.lower()), None)


def parameters(shape: ModelShape) -> int:
    """Parameters of a MaskedAutoencoder."""
    (t, h, w), dim, ddim = shape.grid, shape.embed_dim, shape.decoder_embed_dim
    tables = (h * w + t + 2) * dim + (h * w + t + 3) * ddim  # positions, class tokens, mask token
    patch_embed = (shape.patch_dim + 1) * dim
    encoder = shape.depth * _block_parameters(dim) + 2 * dim
    decoder = (dim + 1) * ddim + shape.decoder_depth * _block_parameters(ddim) + 2 * ddim
    return tables + patch_embed + encoder + decoder + (ddim + 1) * shape.pred_dim


def _block_parameters(dim: int) -> int:
    attention = 4 * (dim + 1) * dim
    mlp = (dim + 1) * MLP_RATIO * dim + (MLP_RATIO * dim + 1) * dim
    return attention + mlp + 4 * dim


def forward_flops_per_clip(shape: ModelShape) -> float:
    """FLOPs of one clip's forward pass: patches embedded where visible, pixels predicted where removed."""
    kept, tokens, dim, ddim = shape.num_kept, shape.num_tokens, shape.embed_dim, shape.decoder_embed_dim
    patch_embed = 2 * kept * shape.patch_dim * dim
    encoder = shape.depth * _block_flops(kept + 1, dim)
    decoder = 2 * (kept + 1) * dim * ddim + shape.decoder_depth * _block_flops(tokens + 1, ddim)
    return patch_embed + encoder + decoder + 2 * (tokens - kept) * ddim * shape.pred_dim


def _block_flops(tokens: int, dim: int) -> float:
    linear = 2 * tokens * dim * dim * (4 + 2 * MLP_RATIO)
    attention = 4 * tokens * tokens * dim
    return linear + attention


def train_flops_per_clip(shape: ModelShape) -> float:
    """FLOPs of forward and backward; pixels need no gradient, so the patch embedding goes back once."""
    patch_embed = 2 * shape.num_kept * shape.patch_dim * shape.embed_dim
    return 3 * forward_flops_per_clip(shape) - patch_embed


def state_gib(shape: ModelShape, *, zero_stage: int, precision: str, world_size: int) -> float:
    """GiB per GPU for weights, gradients, master weights and AdamW's two averages.

    Args:
        shape: The model.
        zero_stage: What is shared among the ranks: 1 optimizer state, 2 and gradients, 3 and weights.
        precision: fp32, or bf16/fp16 with float32 master weights (stage 0: float32 weights under autocast).
        world_size: Ranks.
    """
    low = precision != "fp32" and zero_stage > 0
    weights, gradients, optimizer = (2, 2, 12) if low else (4, 4, 8 if zero_stage == 0 else 12)
    per_rank = [1 / world_size if zero_stage >= stage else 1.0 for stage in (3, 2, 1)]
    bytes_each = weights * per_rank[0] + gradients * per_rank[1] + optimizer * per_rank[2]
    return parameters(shape) * bytes_each / GIB


def activation_gib(shape: ModelShape, *, micro_batch: int, precision: str, checkpointing: bool) -> float:
    """GiB of activations of one micro-batch, roughly: 30 bytes per token, width and block in 16 bits, twice in 32.

    With checkpointing a block keeps its input, and one block at a time is whole.
    """
    number = 4 if precision == "fp32" else 2
    total = 0.0
    for tokens, dim, depth in ((shape.num_kept + 1, shape.embed_dim, shape.depth),
                               (shape.num_tokens + 1, shape.decoder_embed_dim, shape.decoder_depth)):
        block = 15 * number * tokens * dim
        total += depth * number * tokens * dim + block if checkpointing else depth * block
    head = 4 * (shape.num_tokens - shape.num_kept) * shape.pred_dim * 3
    return micro_batch * (total + head) / GIB


def gpu_hours(shape: ModelShape, *, clips: float, peak_tflops: float, mfu: float = 0.4) -> float:
    """GPU-hours to train on `clips` at a share `mfu` of the peak: arithmetic alone, loading and saving not counted."""
    return clips * train_flops_per_clip(shape) / (peak_tflops * 1e12 * mfu) / 3600
