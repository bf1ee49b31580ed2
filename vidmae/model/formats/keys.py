"""What the keys of a state dict tell: sums by group for messages, and whose file it may be. No torch: shapes will do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vidmae.settings.sizes import size_of

Shapes = Mapping[str, tuple[int, ...]]

PATCH_EMBED = "patch_embed.proj.weight"
FIXED = "pos_embed_fixed"  # [T, H * W, D]: of a model without a class token
TEMPORAL = "pos_embed_temporal"  # [1, T, D]: the table of time
CONV_STEM = "stem.spatial.weight"  # of the convolutional net of this suite
FOREIGN = {  # part of a key -> whose it is
    r"\.attn\.qkv\.": "a ViT with one matrix for q, k and v (timm)",
    r"(^|\.)layer4\.0\.conv1\.": "a ResNet",
}


def shapes_of(state: Mapping[str, Any]) -> Shapes:
    """Name -> shape of tensors; of shapes, themselves."""
    return {name: tuple(getattr(tensor, "shape", tensor)) for name, tensor in state.items()}


def groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Parameter names by group, such as `blocks.0-31.attn`."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in names:
        match = re.match(r"(\w*blocks)\.(\d+)\.(\w+)", name)
        key, index = ((match[1], "." + match[3]), int(match[2])) if match else ((name.split(".")[0], ""), -1)
        found.setdefault(key, []).append((index, name))
    return {f"{stem}{_ranges([index for index, _ in members])}{part}": [name for _, name in members]
            for (stem, part), members in found.items()}


def by_group(names: Iterable[str]) -> list[str]:
    """Sum up parameter names, one line a group: `blocks.0-31.attn: 256 tensors`."""
    return [f"{group}: {len(members)} tensor{'s' * (len(members) > 1)}" for group, members in groups(names).items()]


def looks_like(state: Mapping[str, Any]) -> str:
    """What model tensors or shapes seem to be of: a name of ours where it is one, else what gives it away."""
    state = shapes_of(state)
    for pattern, whose in FOREIGN.items():
        if any(re.search(pattern, name) for name in state):
            return whose
    if CONV_STEM in state:
        return "a convolutional net of this suite"
    stem = next((name for name in state if name.endswith(PATCH_EMBED)), None)
    if stem is None:
        return f"none that is known (it begins with {', '.join(list(state)[:3])})"
    if stem != PATCH_EMBED:
        return f"a part of a larger model (names begin with {stem.removesuffix(PATCH_EMBED)})"
    if len(state[PATCH_EMBED]) != 5:
        return "an image model (its patch embedding has no time axis)"
    width, *_, patch_size = state[PATCH_EMBED]
    depth = depth_of(state)
    size = size_of(width, depth)
    kind = "mae_vit" if "mask_token" in state else "vit"
    return f"{kind}_{size}_patch{patch_size}" if size else f"a {kind} of width {width} with {depth} blocks"


def depth_of(names: Iterable[str]) -> int:
    """Blocks of the encoder."""
    return len({name.split(".")[1] for name in names if name.startswith("blocks.")})


def clip_sizes(state: Mapping[str, Any]) -> tuple[int, int, int]:
    """What clips a model of ours takes, from its tensors or shapes: img_size (px), num_frames, t_patch_size.

    Raises:
        ValueError: It has no tables of positions in space and in time.
    """
    state = shapes_of(state)
    tables = "pos_embed_spatial", TEMPORAL
    if FIXED in state and PATCH_EMBED in state:
        *_, t_patch_size, patch_size, _ = state[PATCH_EMBED]
        slots, places, _ = state[FIXED]
        return round(places**0.5) * patch_size, slots * t_patch_size, t_patch_size
    if missing := [name for name in (PATCH_EMBED, *tables) if name not in state]:
        raise ValueError(f"the file has no {' and no '.join(missing)}, so what clips its model takes is not known")
    *_, t_patch_size, patch_size, _ = state[PATCH_EMBED]
    places, slots = (state[name][1] for name in tables)
    return round(places**0.5) * patch_size, slots * t_patch_size, t_patch_size


def _ranges(indices: Sequence[int]) -> str:
    """0 0 1 2 5 as `.0-2,5`; -1 as nothing."""
    spans: list[list[int]] = []
    for i in sorted(set(indices) - {-1}):
        if spans and spans[-1][1] == i - 1:
            spans[-1][1] = i
        else:
            spans.append([i, i])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return "." + text if text else ""
