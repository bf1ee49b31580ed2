"""An image MAE that fills in a clip frame by frame: how far one comes without looking at other frames.

    load_image_mae("runs/s-image-1a2b3c4d")     a run of this suite with clips of one frame (model.num_frames=1)
    load_image_mae("s_vith14.pth")              a released image MAE (facebookresearch/mae and its descendants)

Of a frame that is hidden as a whole such a model sees nothing, and gives what it takes any frame for.

A released image MAE is a video MAE of one frame but for names (vidmae/model/formats/released_image.py) and two things,
neither of which changes a number: the decoder's class token is the encoder's, and pixels are normalised per channel by
ImageNet's statistics. The last goes into the weights of the first and the last layer. Source: He et al. 2022 (arXiv
2111.06377).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidmae.insight.interpolation.baselines import Filler
from vidmae.model.formats.keys import PATCH_EMBED, depth_of
from vidmae.model.formats.released_image import under_our_names
from vidmae.model.formats.translate import IMAGENET_MEAN, IMAGENET_STD
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import mask_from_order
from vidmae.model.trained import load_trained
from vidmae.model.weights import load_into, load_state
from vidmae.settings.sizes import CHANNELS, ModelShape, model_shape, size_of


class ReleasedImageMAE(MaskedAutoencoder):
    """Of one frame, its decoder's class token made from the encoder's."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(shape)
        del self.decoder_cls_token

    def _decoder_class(self, encoded: Tensor) -> Tensor:
        projected: Tensor = self.decoder_embed(encoded[:, :1])
        return projected + self.decoder_pos_embed_class


def load_image_mae(path: str | Path, *, device: torch.device | str = "cpu") -> MaskedAutoencoder:
    """Open an image MAE, in evaluation mode.

    Args:
        path: A run folder, a `.safetensors` export or a released `.pth`. A released file is taken for one that predicts
            pixels and not normalised patches, with 16 heads in its decoder: both leave no trace in it.
        device: Where it shall compute.
    Raises:
        ValueError: The run is not finished, the file cannot be used or has no decoder, or the model takes several frames.
    """
    path = Path(path)
    state = None if path.is_dir() else load_state(path)
    if state is None or "decoder_pos_embed" not in state:
        model = load_trained(path, device=device).model
        if model.shape.num_frames != 1:
            raise ValueError(f"{path} is a video model of {model.shape.num_frames} frames; --image takes an image MAE: one "
                             "that is trained with model.num_frames=1, or a released one")
        return model
    model = ReleasedImageMAE(released_shape(state)).eval()
    try:
        load_into(model, released_weights(state, model.mean, model.std))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.to(device)


def frame_filler(model: MaskedAutoencoder, device: torch.device) -> Filler:
    """An image MAE as a filler. A patch is hidden from it where any of its pixels is."""
    (_, rows, columns), side = model.shape.grid, model.shape.patch_size

    def fill(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        tokens = hidden.reshape(len(clip), rows, side, columns, side).any(axis=(2, 4)).reshape(len(clip), -1)
        filled, counts = clip.astype(np.float32) / 255, tokens.sum(axis=1)
        for count in np.unique(counts[counts > 0]).tolist():
            frames = np.flatnonzero(counts == count)
            order = torch.argsort(torch.from_numpy(tokens[frames]).int(), dim=1, stable=True)
            mask = mask_from_order(order, tokens.shape[1] - count)
            images = model.reconstruct(torch.from_numpy(clip[frames])[:, None].to(device), mask.to(device))
            filled[frames] = np.where(hidden[frames, ..., None], images[:, 0].float().cpu().numpy(), filled[frames])
        return filled

    return fill


def released_shape(state: Mapping[str, Tensor]) -> ModelShape:
    """The sizes of a released image MAE, from the shapes of its tensors.

    Raises:
        ValueError: They are not those of a model that this suite knows.
    """
    width, *_, patch_size = state[PATCH_EMBED].shape
    depth = depth_of(state)
    decoder_depth = depth_of(name.removeprefix("decoder_") for name in state if name.startswith("decoder_"))
    size = size_of(width, depth)
    if size is None:
        raise ValueError(f"an image MAE of width {width} with {depth} blocks is none that is known (--image)")
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    return model_shape(f"mae_vit_{size}_patch{patch_size}", img_size=side * patch_size, num_frames=1, t_patch_size=1,
                       pred_t_dim=1, decoder_embed_dim=state["mask_token"].shape[-1], decoder_depth=decoder_depth)


def released_weights(state: Mapping[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """The weights of a released image MAE, encoder and decoder, for pixels that are normalised by `mean` and `std`."""
    made = under_our_names(state, mean, std)
    _give_pixels(made, mean, std)
    return made


def _give_pixels(state: dict[str, Tensor], mean: float, std: float) -> None:
    """Let the last layer give pixels that are normalised by `mean` and `std`; the channel changes fastest among them."""
    weight, bias = (state[f"decoder_pred.{part}"].double() for part in ("weight", "bias"))
    pixels = len(bias) // CHANNELS
    means, stds = (torch.tensor(values, dtype=torch.double).repeat(pixels) for values in (IMAGENET_MEAN, IMAGENET_STD))
    state["decoder_pred.weight"] = weight * stds[:, None] / std
    state["decoder_pred.bias"] = (bias * stds + means - mean) / std
