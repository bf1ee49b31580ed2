"""What a model costs before it runs: parameters, FLOPs, memory, GPU-hours. Stdlib only; the launcher prints these.

FLOPs are those of matrix products, two per multiply-add; a backward pass is twice the forward one.
Letters: L tokens, K kept, D encoder width, d decoder width, N tokens of a sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidmae.runs.gpus import gpu_peak_tflops as gpu_peak_tflops  # one of the things that a cost is made of
from vidmae.settings.conv_sizes import ConvShape, conv_shape
from vidmae.settings.sizes import EncoderShape, ModelShape, mlp_dim

if TYPE_CHECKING:  # a schema reads YAML, and this module is for machines that have the standard library alone
    from vidmae.settings.finetune_config import ClassifierConfig

GIB = 2**30


def parameters(shape: ModelShape) -> int:
    """Parameters of a MaskedAutoencoder: 645,534,104 for mae_vit_huge_patch14 as published."""
    (t, h, w), dim, ddim = shape.grid, shape.embed_dim, shape.decoder_embed_dim
    t = t if shape.temporal_positions else 0
    tables = (h * w + t + 2) * dim + (h * w + t + 3) * ddim  # positions, class tokens and theirs, mask token
    patch_embed = (shape.patch_dim + 1) * dim
    encoder = shape.depth * _block_parameters(dim) + 2 * dim
    decoder = (dim + 1) * ddim + shape.decoder_depth * _block_parameters(ddim) + 2 * ddim
    return tables + patch_embed + encoder + decoder + (ddim + 1) * shape.pred_dim


def forward_flops_per_clip(shape: ModelShape, *, textbook: bool = False) -> float:
    """FLOPs of one clip's forward pass.

    Args:
        shape: The model.
        textbook: Count what the released code computes: it embeds, decodes and predicts all L tokens, where this model
            embeds the kept, predicts the removed, and with decoder_mask_ratio decodes and predicts a part of them.
    Returns:
        FLOPs; for ViT-H/14 359.7e9 as released, 353.9e9 here.
    """
    kept, ddim = shape.num_kept, shape.decoder_embed_dim
    hidden = shape.num_tokens - kept if textbook else shape.num_rebuilt
    encoder = shape.depth * _block_flops(kept + 1, shape.embed_dim)
    decoder = 2 * kept * shape.embed_dim * ddim + shape.decoder_depth * _block_flops(1 + kept + hidden, ddim)
    head = 2 * (shape.num_tokens if textbook else hidden) * ddim * shape.pred_dim
    return _patch_embed_flops(shape, textbook) + encoder + decoder + head


def train_flops_per_clip(shape: ModelShape, *, textbook: bool = False) -> float:
    """FLOPs of forward and backward; pixels need no gradient, so the patch embedding goes back once. Where features are
    predicted, the teacher's forward pass over all tokens comes on top: of ViT-H/14 three times the rest."""
    student = 3 * forward_flops_per_clip(shape, textbook=textbook) - _patch_embed_flops(shape, textbook)
    return student + teacher_flops_per_clip(shape)


def teacher_flops_per_clip(shape: ModelShape) -> float:
    """FLOPs of what a teacher makes of one clip, all of whose tokens it sees; 0 where pixels are predicted."""
    return encoder_flops_per_clip(shape) if shape.target == "features" else 0.0


def teacher_bytes(shape: ModelShape, *, clips: int, passes: int, precision: str, number: int, averaged: float) -> float:
    """Bytes that the teacher of one step moves through a GPU's memory; 0 where pixels are predicted.

    Its weights are read in each pass, and each block writes and reads once the 12 numbers per token and channel that a
    block of the student keeps. An update reads average and master weights and writes the average (12 bytes per parameter of
    the share that lies on this GPU), then writes and reads the weights that compute.

    Args:
        shape: The model.
        clips: Of the step on this GPU.
        passes: Forward passes of the step.
        precision: fp32, bf16 or fp16.
        number: Bytes of a weight that computes.
        averaged: Share of the average that lies on this GPU.
    """
    if shape.target == "pixels":
        return 0.0
    activations = 24 * shape.depth * (shape.num_tokens + 1) * shape.embed_dim * (4 if precision == "fp32" else 2)
    return clips * activations + parameters(shape) * ((passes + 2) * number + 12 * averaged)


def recomputed_flops_per_clip(shape: ModelShape, every: int) -> float:
    """FLOPs of the blocks that activation checkpointing computes again: 0 none, 1 all, N every N-th from the first on.

    Whole blocks, as compiled ones are computed; of an eager block torch leaves out the last product, whose result nobody
    needs.
    """
    if not every:
        return 0.0
    encoder = _recomputed(shape.depth, every) * _block_flops(shape.num_kept + 1, shape.embed_dim)
    tokens = 1 + shape.num_kept + shape.num_rebuilt
    return encoder + _recomputed(shape.decoder_depth, every) * _block_flops(tokens, shape.decoder_embed_dim)


def encoder_flops_per_clip(shape: EncoderShape) -> float:
    """FLOPs of one view through a classifier's encoder, which sees all tokens: 3.27e12 for ViT-H/14; the head aside."""
    embed = 2 * shape.num_tokens * shape.patch_dim * shape.embed_dim
    return embed + shape.depth * _block_flops(shape.num_tokens + shape.class_tokens, shape.embed_dim)


def finetune_flops_per_clip(shape: EncoderShape) -> float:
    """FLOPs of forward and backward of a classifier whose weights all learn."""
    return 3 * encoder_flops_per_clip(shape)


def train_flops_of_vit(shape: EncoderShape) -> float:
    """The same as torch counts it: without the gradient of the pixels, which nobody needs."""
    return finetune_flops_per_clip(shape) - 2.0 * shape.num_tokens * shape.patch_dim * shape.embed_dim


def conv_like(shape: EncoderShape) -> ConvShape:
    """The convolutional net whose forward and backward pass takes the FLOPs of a classifier; see `conv_shape`."""
    return conv_shape(train_flops_of_vit(shape), shape.num_frames, shape.img_size)


def view_flops(model: ClassifierConfig) -> float:
    """FLOPs of one view through the network of a cell; the head aside."""
    shape = model.shape()
    return conv_like(shape).forward_flops if model.net == "conv" else encoder_flops_per_clip(shape)


def step_flops(model: ClassifierConfig) -> float:
    """FLOPs of forward and backward of one clip through the network of a cell, whose weights all learn."""
    shape = model.shape()
    return conv_like(shape).train_flops if model.net == "conv" else finetune_flops_per_clip(shape)


def state_gib(shape: ModelShape, *, zero_stage: int, precision: str, world_size: int, offload: bool = False) -> float:
    """GiB per GPU for weights, gradients, master weights and AdamW's two averages.

    In 16 bits 2 + 2 + 12 bytes per parameter. Stage 0 computes bf16 by autocast over float32 weights (4 + 4 + 8); the
    sharded stages keep a master copy even of float32 weights (4 + 4 + 12). A teacher (target features) is a running average
    beside the master weights (4, shared as they are), and a whole copy that computes (as the weights). Buffers and allocator
    slack come on top.

    Args:
        shape: The model.
        zero_stage: What is shared among the ranks: 1 optimizer state, 2 and gradients, 3 and weights.
        precision: fp32, bf16 or fp16.
        world_size: Ranks.
        offload: Master weights and averages lie in the host's memory (see `host_gib`), in the sharded stages.
    Source: Rajbhandari et al. 2020 (arXiv 1910.02054) sec. 5.
    """
    low = precision != "fp32" and zero_stage > 0
    weights, gradients, optimizer = (2, 2, 12) if low else (4, 4, 8 if zero_stage == 0 else 12)
    teacher = weights if shape.target == "features" else 0
    optimizer += 4 if shape.target == "features" else 0
    optimizer = 0 if offload and zero_stage else optimizer
    share = [1 / world_size if zero_stage >= stage else 1.0 for stage in (3, 2, 1)]
    return parameters(shape) * (weights * share[0] + gradients * share[1] + optimizer * share[2] + teacher) / GIB


def host_gib(shape: ModelShape, *, precision: str, world_size: int, grad_accum: int) -> float:
    """GiB of the host's memory that one rank needs for an optimizer that lies there (train.offload).

    Per parameter of its share: master weight and two averages (12), gradient in float32 (4), the weight that goes back to
    the GPU, where gradients add up over several forward passes the sum so far, and of a teacher the average (4).

    Args:
        shape: The model.
        precision: fp32, bf16 or fp16.
        world_size: Ranks.
        grad_accum: Forward passes per update.
    """
    number = 4 if precision == "fp32" else 2
    average = 4 if shape.target == "features" else 0
    return parameters(shape) / world_size * (16 + average + number * (2 if grad_accum > 1 else 1)) / GIB


def copies_gib(shape: ModelShape, *, zero_stage: int, precision: str, nodes: int) -> float:
    """GiB of a node's memory that copies of checkpoints take there (checkpoint.memory_steps), at the worst moment.

    Two generations, of the node's own ranks and of its partner's. Per parameter: float32 weight and two averages (12), of a
    teacher the average (4), shared among the ranks; in stages 1 and 2 the weights that compute, of rank 0 alone, whose node
    is the one that this is for. In stage 0 rank 0 has all.

    Args:
        shape: The model.
        zero_stage: What is shared among the ranks.
        precision: fp32, bf16 or fp16.
        nodes: Nodes of the job.
    """
    shared = 12 + (4 if shape.target == "features" else 0)
    share = min(1.0, 2 / nodes) if zero_stage else 1.0
    of_main = (4 if precision == "fp32" else 2) if zero_stage in (1, 2) else 0
    return 2 * parameters(shape) * (shared * share + of_main) / GIB


def activation_gib(shape: ModelShape, *, micro_batch: int, precision: str, checkpointing: int) -> float:
    """GiB that one micro-batch keeps for the backward pass, fused attention assumed.

    A block keeps 12 numbers per token and channel: input and output of both norms (4), q k v (3), the attention's
    output (1), the GELU's input (4). One that is computed again keeps its input, and one of these at a time is whole, the
    GELU's output (4) with it. A test holds this against the tensors that autograd saves. A teacher keeps what it made of all
    tokens, in float32.

    Args:
        shape: The model.
        micro_batch: Clips.
        precision: fp32, bf16 or fp16.
        checkpointing: Blocks that are computed again in the backward pass: 0 none, 1 all, N every N-th from the first on.
    """
    number = 4 if precision == "fp32" else 2
    encoder = (shape.num_kept + 1) * shape.embed_dim
    removed = shape.num_rebuilt
    decoder = (1 + shape.num_kept + removed) * shape.decoder_embed_dim
    blocks = 12 * (shape.depth * encoder + shape.decoder_depth * decoder)
    if checkpointing:
        again = _recomputed(shape.depth, checkpointing) * encoder + _recomputed(shape.decoder_depth, checkpointing) * decoder
        blocks += 15 * max(encoder, decoder) - 11 * again
    ends = shape.num_kept * shape.patch_dim + 2 * encoder + 2 * removed * shape.decoder_embed_dim
    loss = 2 * removed * shape.pred_dim * 4  # prediction and target in float32
    features = 4 * shape.num_tokens * shape.embed_dim if shape.target == "features" else 0
    return micro_batch * ((blocks + ends) * number + loss + features) / GIB


def gpu_hours(shape: ModelShape, *, clips: float, peak_tflops: float, mfu: float = 0.4) -> float:
    """GPU-hours to pretrain on `clips`; see `hours_of`."""
    return hours_of(clips * train_flops_per_clip(shape), peak_tflops=peak_tflops, mfu=mfu)


def hours_of(flops: float, *, peak_tflops: float, mfu: float = 0.4) -> float:
    """GPU-hours at a share `mfu` of the peak: arithmetic alone, loading and saving not counted.

    Raises:
        ValueError: `mfu` is not in (0, 1].
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu {mfu} must be above 0 and at most 1, a share of the peak")
    return flops / (peak_tflops * 1e12 * mfu) / 3600


def _recomputed(depth: int, every: int) -> int:
    """How many of so many blocks activation checkpointing computes again: those whose number N divides, from 0 on."""
    return -(-depth // every)


def _block_parameters(dim: int) -> int:
    attention = 4 * (dim + 1) * dim
    mlp = (dim + 1) * mlp_dim(dim) + (mlp_dim(dim) + 1) * dim
    return attention + mlp + 4 * dim


def _block_flops(tokens: int, dim: int) -> float:
    linear = 2 * tokens * dim * (4 * dim + 2 * mlp_dim(dim))
    attention = 4 * tokens * tokens * dim
    return linear + attention


def _patch_embed_flops(shape: ModelShape, textbook: bool) -> float:
    return 2 * (shape.num_tokens if textbook else shape.num_kept) * shape.patch_dim * shape.embed_dim
