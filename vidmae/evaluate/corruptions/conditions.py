"""Names of conditions, and what they do to frames. Imports neither torch nor OpenCV before it is asked to corrupt.

A corruption of pictures is constant over a clip: noise, ice and angles are drawn once for all frames. With `-flicker` behind
its name it is drawn anew for each frame; where nothing is drawn, half of the frames (more, if odd) are corrupted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vidmae.evaluate.corruptions import blurs, clip_faults, digital, frame_order, noise, parametric, shape_cues, weather
from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.settings.layers import ConfigError, nearest

CLEAN = "clean"
FLICKER = "-flicker"
IMAGENET_C = ("noise", "blur", "weather", "digital")
GROUPS = (*IMAGENET_C, "parametric", "shape", "video", "time")
_IMAGE_KINDS = noise.KINDS | blurs.KINDS | weather.KINDS | digital.KINDS
ALL: dict[str, Kind] = {
    **_IMAGE_KINDS, **parametric.KINDS, **shape_cues.KINDS, **clip_faults.KINDS, **frame_order.KINDS,
    **{f"{name}{FLICKER}": replace(kind, group="video", drawn=True) for name, kind in _IMAGE_KINDS.items()}}


@dataclass(frozen=True)
class Condition:
    """One corruption at one level, or none.

    Attributes:
        name: A key of `ALL`, or `clean`.
        level: From 1 on; 0 for `clean` alone.
    Raises:
        ConfigError: There is no such corruption or level.
    """

    name: str
    level: int = 0

    def __post_init__(self) -> None:
        if self.name == CLEAN:
            if self.level:
                raise ConfigError(f"--conditions: {CLEAN} has no levels, got {CLEAN}:{self.level}")
            return
        if self.name not in ALL:
            known = [CLEAN, "imagenet-c", *GROUPS, *ALL]
            raise ConfigError(f"--conditions: there is no condition {self.name!r}{nearest(self.name, known)} "
                              f"Groups: imagenet-c, {', '.join(GROUPS)}; all names: vidmae/evaluate/corruptions/README.md")
        levels = len(ALL[self.name].constants)
        if not 1 <= self.level <= levels:
            raise ConfigError(f"--conditions: {self.name} has the levels 1 to {levels}, got {self.level}")

    @property
    def text(self) -> str:
        """`gaussian_noise:3` or `clean`, as `parse_conditions` reads it."""
        return f"{self.name}:{self.level}" if self.level else self.name

    @property
    def group(self) -> str:
        """Where it belongs: noise, blur, weather, digital, parametric, shape, video, time or clean."""
        return ALL[self.name].group if self.level else CLEAN

    @property
    def generated(self) -> bool:
        """Whether it stands in for a published set that cannot be made from any picture."""
        return bool(self.level) and ALL[self.name].generated


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Read a list of conditions.

    Args:
        text: Names with commas between: `clean`, `gaussian_noise:3`, a corruption without a level (all its levels), a group
            (all in it), or `imagenet-c` (the groups noise, blur, weather and digital).
    Returns:
        Each condition once, in the order of the first mention.
    Raises:
        ConfigError: A name or a level is unknown, or there is nothing; the message has the nearest names.
    """
    found: dict[Condition, None] = {}
    for part in (part.strip() for part in text.split(",")):
        if part:
            found |= dict.fromkeys(_named(part))
    if not found:
        raise ConfigError("--conditions: no condition is given; try clean,imagenet-c")
    return tuple(found)


def _named(part: str) -> Iterator[Condition]:
    """The conditions that one part of a list names."""
    name, colon, level = part.partition(":")
    groups = IMAGENET_C if name == "imagenet-c" else (name,) if name in GROUPS else ()
    if colon:
        if groups:
            raise ConfigError(f"--conditions: {name} is a group and has no level of its own; name its members, or leave out "
                              f"{colon}{level}")
        if not level.isdecimal():
            raise ConfigError(f"--conditions: the level of {name} is a whole number from 1 on, got {level!r}")
        yield Condition(name, int(level))
    elif groups:
        yield from (Condition(each, level) for group in groups for each, kind in ALL.items() if kind.group == group
                    for level in range(1, len(kind.constants) + 1))
    elif name in ALL:
        yield from (Condition(name, level) for level in range(1, len(ALL[name].constants) + 1))
    else:
        yield Condition(name)


def apply(frames: np.ndarray, condition: Condition, seed: int) -> np.ndarray:
    """Corrupt the frames of a clip; an image is a clip of one frame.

    What is drawn follows from the seed and from the name of the corruption. All levels of a corruption share their draws, so
    that what differs between levels is the strength alone.

    Args:
        frames: uint8 [T, H, W, 3]; stays as it is.
        condition: What to do.
        seed: Of the content, 0 or more: the same for an image under all conditions.
    Returns:
        uint8 [T, H, W, 3]; for `clean`, and where there is no second frame to differ, `frames` itself or equal ones.
    Raises:
        ValueError: The frames have another type or shape, or cannot be turned (`rotation`).
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    if condition.name == CLEAN:
        return frames
    kind = ALL[condition.name]
    constants = kind.constants[condition.level - 1]
    name = condition.name.removesuffix(FLICKER)
    if name == condition.name:
        return np.ascontiguousarray(kind.corrupt(frames, constants, _rng(seed, name)))
    if _IMAGE_KINDS[name].drawn:
        struck = range(len(frames))
    else:
        struck = _rng(seed, name).permutation(len(frames))[:(len(frames) + 1) // 2].tolist()
    out = frames.copy()
    for t in struck:
        out[t] = kind.corrupt(frames[t:t + 1], constants, _rng(seed, name, t))[0]
    return out


def _rng(seed: int, name: str, *more: int) -> np.random.Generator:
    """Random numbers for a corruption of some content, the same on every machine."""
    return np.random.Generator(np.random.PCG64DXSM([seed, zlib.crc32(name.encode()), *more]))
