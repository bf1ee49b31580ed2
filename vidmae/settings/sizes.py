"""Names, sizes and token arithmetic of the models. Stdlib only: the launcher reads it without torch.

Letters: L tokens per clip, K kept tokens, T H W token grid, P pixel values per patch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

CHANNELS = 3
MLP_RATIO = 4  # hidden width of a block's MLP, in widths

Positions = Literal["learned", "fixed", "rotary"]
"""How an encoder knows where a token is. learned: tables of space and of time, and a class token (ST-MAE). fixed: one table
of sines that does not learn, and no class token (VideoMAE, V-JEPA). rotary: queries and keys are turned, and no class token
(V-JEPA 2)."""

MaskKind = Literal["random", "tube", "causal"]
"""What pretraining hides. random: tokens anywhere in space and time. tube: the same places in every time slot. causal: all
that comes later, and all but tubes of what came before (`masking.training_mask`)."""

Target = Literal["pixels", "features"]
"""What a masked autoencoder predicts of hidden tokens: pixels, or what a teacher makes of them that sees the whole clip."""

ENCODER_SIZES = {  # width, blocks, attention heads
    "pico": (24, 1, 2),  # toys for tests and the demo; the field has no models of these names
    "nano": (96, 3, 3),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16),  # of VideoMAE V2; that of V-JEPA 2 has 22 heads
}
GIANT_DIM, GIANT_MLP_DIM, GIANT_ROTARY_HEADS = 1408, 6144, 22


def mlp_dim(dim: int) -> int:
    """Hidden width of a block's MLP: four widths, but for ViT-g, which has 48/11 of them."""
    return GIANT_MLP_DIM if dim == GIANT_DIM else MLP_RATIO * dim


def size_of(width: int, depth: int) -> str | None:
    """The name of the encoder of so many channels and blocks; None where there is none."""
    return next((size for size, (dim, blocks, _) in ENCODER_SIZES.items() if (dim, blocks) == (width, depth)), None)


def num_kept(num_tokens: int, mask_ratio: float, flag: str = "model.mask_ratio") -> int:
    """K, the tokens that stay visible.

    The product is truncated in floating point, as in the released training code: 1000 tokens at 0.9 keep 99, not 100.

    Args:
        num_tokens: L, tokens per clip.
        mask_ratio: Fraction removed, between 0 and 1, both excluded.
        flag: What sets the ratio; the message begins with it.
    Returns:
        int(L * (1 - mask_ratio)), at least 1 and less than L.
    Raises:
        ValueError: No token or every token would be kept; the message gives the ratios that work.
    """
    if not (0 < mask_ratio < 1 and 0 < (kept := int(num_tokens * (1 - mask_ratio))) < num_tokens):
        raise ValueError(f"{flag} {mask_ratio} keeps none or all of {num_tokens} tokens; a model needs at least one kept "
                         f"and one removed: use a ratio above 0 and at most {max(0.0, 1 - 1 / num_tokens):.4g}")
    return kept


def num_rebuilt(hidden: int, decoder_mask_ratio: float, flag: str = "model.decoder_mask_ratio") -> int:
    """How many of the hidden tokens the decoder rebuilds.

    Args:
        hidden: Tokens that the encoder does not see.
        decoder_mask_ratio: Share of them that the decoder leaves out, from 0 (none) to below 1.
        flag: What sets the ratio; the message begins with it.
    Returns:
        hidden - int(hidden * decoder_mask_ratio), so at least 1.
    Raises:
        ValueError: The ratio is not from 0 to below 1.
    """
    if not 0 <= decoder_mask_ratio < 1:
        raise ValueError(f"{flag} {decoder_mask_ratio} must be from 0 (the decoder rebuilds all hidden tokens) to below 1")
    return hidden - int(hidden * decoder_mask_ratio)


@dataclass(frozen=True)
class EncoderShape:
    """What fixes every tensor of an encoder and its token arithmetic. Build one with `encoder_shape`.

    Attributes:
        name: `vit_{size}_patch{px}`.
        img_size: Side of the square frame in px.
        num_frames: Frames per clip.
        t_patch_size: Frames per token.
        patch_size: Side of a token in px.
        embed_dim: Encoder width.
        depth: Encoder blocks.
        num_heads: Encoder attention heads.
        positions: How it knows where a token is; `learned` alone has a class token.
        temporal_positions: Learned positions have a table of time beside that of space. Without it tokens of one place are
            told apart by what they show alone, and no tensor has its name.
    """

    name: str
    img_size: int
    num_frames: int
    t_patch_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    positions: Positions = field(default="learned", kw_only=True)
    temporal_positions: bool = field(default=True, kw_only=True)

    @property
    def class_tokens(self) -> int:
        """Tokens before those of the patches: 1 or 0."""
        return int(self.positions == "learned")

    @property
    def grid(self) -> tuple[int, int, int]:
        """T, H, W of the token grid; token (t, h, w) has index (t * H + h) * W + w."""
        side = self.img_size // self.patch_size
        return self.num_frames // self.t_patch_size, side, side

    @property
    def num_tokens(self) -> int:
        """L."""
        t, h, w = self.grid
        return t * h * w

    @property
    def patch_dim(self) -> int:
        """P, pixel values of one input patch."""
        return self.t_patch_size * self.patch_size**2 * CHANNELS


@dataclass(frozen=True)
class ModelShape(EncoderShape):
    """What fixes every tensor of a video MAE and its cost. Build one with `model_shape`.

    Attributes:
        name: `mae_vit_{size}_patch{px}`.
        decoder_embed_dim: Decoder width.
        decoder_depth: Decoder blocks.
        decoder_num_heads: Decoder attention heads.
        mask_ratio: Fraction of the tokens removed in training.
        pred_t_dim: Frames of a clip that are predicted; features have no use for it.
        decoder_mask_ratio: Fraction of the removed tokens that the decoder does not rebuild in training.
        mask: Which tokens training removes.
        target: What the decoder predicts of a token.
    """

    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    mask_ratio: float
    pred_t_dim: int
    decoder_mask_ratio: float = 0.0
    mask: MaskKind = "random"
    target: Target = "pixels"

    @property
    def num_kept(self) -> int:
        """K at `mask_ratio`. Tubes keep whole places: of each slot int(H * W * (1 - mask_ratio)), 200 in all for ViT-H where
        other masks keep 204."""
        if self.mask != "tube":
            return num_kept(self.num_tokens, self.mask_ratio)
        slots, height, width = self.grid
        return slots * num_kept(height * width, self.mask_ratio, "model.mask tube: model.mask_ratio")

    @property
    def num_rebuilt(self) -> int:
        """Tokens of a clip that the decoder rebuilds in training; all L - K where decoder_mask_ratio is 0."""
        return num_rebuilt(self.num_tokens - self.num_kept, self.decoder_mask_ratio)

    @property
    def pred_t_patch_size(self) -> int:
        """Predicted frames per token."""
        return self.pred_t_dim // self.grid[0]

    @property
    def pred_dim(self) -> int:
        """Numbers predicted per token: pixel values, or the encoder's width where features are predicted."""
        if self.target == "features":
            return self.embed_dim
        return self.pred_t_patch_size * self.patch_size**2 * CHANNELS


def encoder_shape(name: str, *, img_size: int = 224, num_frames: int = 16, t_patch_size: int = 2,
                  positions: Positions = "learned", temporal_positions: bool = True) -> EncoderShape:
    """Work out the shape of a named encoder.

    Args:
        name: `vit_{size}_patch{px}`, size one of ENCODER_SIZES; see EncoderShape for the rest.
    Returns:
        A checked shape.
    Raises:
        ValueError: The name is unknown, or sizes do not divide; the message says what would do.
    """
    shape = _encoder(name, "vit_", img_size, num_frames, t_patch_size)
    heads = GIANT_ROTARY_HEADS if positions == "rotary" and shape.embed_dim == GIANT_DIM else shape.num_heads
    if not temporal_positions and positions != "learned":
        raise ValueError(f"temporal_positions False needs learned positions, and these are {positions}, which hold space "
                         "and time in one (model.temporal_positions)")
    return replace(shape, positions=positions, num_heads=heads, temporal_positions=temporal_positions)


def model_shape(
    name: str, *, img_size: int = 224, num_frames: int = 16, t_patch_size: int = 2, decoder_embed_dim: int = 512,
    decoder_depth: int = 4, decoder_num_heads: int = 16, mask_ratio: float = 0.9, pred_t_dim: int = 16,
    decoder_mask_ratio: float = 0.0, mask: MaskKind = "random", temporal_positions: bool = True, target: Target = "pixels",
) -> ModelShape:
    """Work out the shape of a named model.

    Args:
        name: `mae_vit_{size}_patch{px}`, size one of ENCODER_SIZES; see ModelShape for the rest.
    Returns:
        A checked shape.
    Raises:
        ValueError: The name is unknown, or sizes do not divide; the message says what would do.
    """
    encoder = replace(_encoder(name, "mae_vit_", img_size, num_frames, t_patch_size), temporal_positions=temporal_positions)
    if target == "pixels":
        _divides("pred_t_dim", pred_t_dim, f"the clip's {num_frames // t_patch_size} time slots", num_frames // t_patch_size)
    _divides("decoder_embed_dim", decoder_embed_dim, "decoder_num_heads", decoder_num_heads)
    if target == "pixels" and pred_t_dim > num_frames:
        raise ValueError(f"pred_t_dim {pred_t_dim} is more than num_frames {num_frames}; predict at most every frame "
                         f"(model.pred_t_dim)")
    shape = ModelShape(
        **vars(encoder), decoder_embed_dim=decoder_embed_dim, decoder_depth=decoder_depth,
        decoder_num_heads=decoder_num_heads, mask_ratio=mask_ratio, pred_t_dim=pred_t_dim,
        decoder_mask_ratio=decoder_mask_ratio, mask=mask, target=target)
    num_rebuilt(shape.num_tokens - shape.num_kept, decoder_mask_ratio)
    return shape


def _encoder(name: str, prefix: str, img_size: int, num_frames: int, t_patch_size: int) -> EncoderShape:
    match = re.fullmatch(rf"{prefix}({'|'.join(ENCODER_SIZES)})_patch([1-9]\d*)", name)
    if not match:
        raise ValueError(f"unknown model {name!r}; valid: {prefix}{{{','.join(ENCODER_SIZES)}}}_patch{{px}}, such as "
                         f"{prefix}huge_patch14 or {prefix}base_patch16 (model.name)")
    patch_size = int(match[2])
    _divides("img_size", img_size, "the patch size", patch_size)
    _divides("num_frames", num_frames, "t_patch_size", t_patch_size)
    return EncoderShape(name, img_size, num_frames, t_patch_size, patch_size, *ENCODER_SIZES[match[1]])


def _divides(what: str, value: int, unit_name: str, unit: int) -> None:
    if unit < 1 or value < 1 or value % unit:
        near = f"; nearest: {', '.join(str(n) for n in (value // unit * unit, (value // unit + 1) * unit) if n > 0)}" \
            if unit > 0 else ""
        raise ValueError(f"{what} {value} must be a positive multiple of {unit_name} ({unit}){near} (model.{what})")
