"""Parameter groups for the optimizer: who decays, and in finetuning who learns how fast."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vidmae.model.classifier import VideoClassifier


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters for the optimizer: biases and 1-D tensors are exempt from weight decay, all others decay.

    Position tables, class tokens and the mask token decay too, as in the released training runs.

    Returns:
        Two groups, decayed first.
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, param in model.named_parameters():
        if param.requires_grad:
            groups[no_weight_decay(name, param)].append(param)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def layer_decay_groups(model: VideoClassifier, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Split parameters for finetuning: the nearer a layer is to the pixels, the slower it learns.

    Class token, positions and patch embedding are layer 0, block i is layer i + 1, norm and head are the last. What
    does not require a gradient is left out.

    Args:
        model: Its parameters may be sharded.
        weight_decay: For all but biases and 1-D tensors.
        layer_decay: Factor from one layer to the one below, in (0, 1]; 0.8 in the released runs, 1 for none.
    Returns:
        Groups from the first layer to the last, of each layer the decayed first. `lr_scale` of a group is
        layer_decay ** (last - layer): who sets the learning rate multiplies by it, torch's AdamW only carries it.
    Raises:
        ValueError: layer_decay is out of range.
    Source: Clark et al. 2020 (arXiv 2003.10555); Bao et al. 2022 (arXiv 2106.08254).
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay {layer_decay} must be above 0 and at most 1 (1: all layers learn alike)")
    last = model.shape.depth + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, param in model.named_parameters():
        if param.requires_grad:
            layer, exempt = _layer(name, last), no_weight_decay(name, param)
            groups.setdefault((layer, exempt), {
                "params": [], "weight_decay": 0.0 if exempt else weight_decay, "lr_scale": layer_decay ** (last - layer),
            })["params"].append(param)
    return [groups[key] for key in sorted(groups)]


def no_weight_decay(name: str, param: Tensor) -> bool:
    """Whether a parameter is exempt: a bias or 1-D. Under ZeRO-3 `param` may be a shard; its full shape counts."""
    return name.endswith(".bias") or len(getattr(param, "ds_shape", param.shape)) <= 1


def _layer(name: str, last: int) -> int:
    """The layer that a parameter of a classifier belongs to."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.split(".")[0]) + 1
    assert part in ("cls_token", "patch_embed", "norm", "head") or part.startswith("pos_embed_"), name
    return last if part in ("norm", "head") else 0
