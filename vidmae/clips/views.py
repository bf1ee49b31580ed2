"""Which part of a video a model is tested on: pure numbers that hang on the clip alone, not on order, ranks or machine.

    center   |-------======-------|   the middle time window, the centred square of the picture
    random   |--======------------|   one window, square and flip for each clip, drawn from its content
    3x1      |======--============|   T windows from the first frame to the last, S squares along the long side of each:
    1x3      |-------======-------|   view v of TxS is window v // S, square v % S; 1x1 is center
    frames4  |-------=-=-=-=------|   N single frames, for models of one frame: those that a clip of N frames has in the
                                      middle window; view v is frame v

Every square is resized to img_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidmae.clips.order import VIEW, rng
from vidmae.footage.frame_numbers import clip_indices, random_start, span_frames
from vidmae.settings.finetune_config import VIEW_WORDS, VIEWS

if TYPE_CHECKING:
    from vidmae.clips.transforms import Box

RANDOM_SHORT_SIDE_PX = (256, 320)  # of the picture that the paper's random view cuts a square of 224 px out of
_PAPER_IMG_SIZE_PX = 224
_FRAMES = "frames"
_TIME, _PICTURE = 0, 1  # what is drawn of a random view


@dataclass(frozen=True)
class ViewSpec:
    """What a view is; the meaning of each value stands in config.DataConfig, ModelConfig and EvaluateConfig.

    Attributes:
        num_frames: T, frames of a view.
        sampling_rate: Frame stride at target_fps.
        target_fps: Rate that the stride is counted in.
        img_size: S, px.
        views: center, random, TxS or framesN.
        seed: Of the random view.
        every_s: Of windows that slide over a recording: seconds from the start of one view to that of the next, with the
            centred square; view v starts at v * every_s. 0: `views` says what a view is.
    """

    num_frames: int
    sampling_rate: int
    target_fps: float
    img_size: int
    views: str = "center"
    seed: int = 0
    every_s: float = 0.0

    def __post_init__(self) -> None:
        if not VIEWS.fullmatch(self.views):
            raise ValueError(f"views {self.views!r} must be {VIEW_WORDS} (evaluate.views)")
        if self.by_frame and self.num_frames != 1:
            raise ValueError(f"views {self.views} is for models of single frames, and this one takes {self.num_frames} "
                             "frames at once; allowed: center, random, TxS (--views)")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a view: T, S, S, 3."""
        return self.num_frames, self.img_size, self.img_size, 3

    @property
    def windows(self) -> int:
        """Time windows per clip; of framesN the N frames."""
        return self._grid[0]

    @property
    def squares(self) -> int:
        """Squares of each window."""
        return self._grid[1]

    @property
    def views_per_clip(self) -> int:
        """Forward passes that a clip costs."""
        return self.windows * self.squares

    @property
    def by_frame(self) -> bool:
        """Whether a view is one frame of a clip, and the model's scores of all of them are averaged."""
        return self.views.startswith(_FRAMES)

    @property
    def _grid(self) -> tuple[int, int]:
        if self.views in ("center", "random"):
            return 1, 1
        if self.by_frame:
            return int(self.views.removeprefix(_FRAMES)), 1
        windows, squares = self.views.split("x")
        return int(windows), int(squares)


def view_frames(spec: ViewSpec, view: int, *, content: int, total_frames: int, fps: float) -> np.ndarray:
    """Frame numbers of a view.

    Args:
        spec: What a view is.
        view: Which of the clip's views, from 0.
        content: Content hash of the clip, of a prepared one that of its source.
        total_frames: Of the file.
        fps: Of the file.
    Returns:
        int64 [T], ascending, in [0, total_frames).
    """
    together = spec.windows if spec.by_frame else spec.num_frames
    span = span_frames(num_frames=together, sampling_rate=spec.sampling_rate, target_fps=spec.target_fps, fps=fps)
    if spec.by_frame:
        return clip_indices(max(total_frames - span, 0) * _place(0, 1), span, together, total_frames)[view:view + 1]
    if spec.every_s:
        start = view * spec.every_s * fps
    elif spec.views == "random":
        start = random_start(rng(VIEW, spec.seed, content, _TIME), span, total_frames)
    else:
        start = max(total_frames - span, 0) * _place(view // spec.squares, spec.windows)
    return clip_indices(start, span, spec.num_frames, total_frames)


def view_box(spec: ViewSpec, view: int, *, content: int, height: int, width: int) -> tuple[Box, bool]:
    """The square of the picture that a view shows, and whether it is mirrored.

    Args:
        spec: What a view is.
        view: Which of the clip's views, from 0.
        content: Content hash of the clip.
        height: Of the picture, px.
        width: Of the picture, px.
    Returns:
        top, left, height, width in px inside the picture; and True where left and right are changed.
    Source: The random view is the paper's validation view (Orhan et al. 2024, released code): short side scaled to 256 to
        320 px, a square of 224 px cut at a random place, mirrored half of the time.
    """
    short = min(height, width)
    if spec.views == "random":
        own = rng(VIEW, spec.seed, content, _PICTURE)
        side = max(1, round(short * _PAPER_IMG_SIZE_PX / own.uniform(*RANDOM_SHORT_SIDE_PX)))
        top, left = int(own.integers(height - side + 1)), int(own.integers(width - side + 1))
        return (top, left, side, side), bool(own.random() < 0.5)
    along = _place(view % spec.squares, spec.squares)
    return (int((height - short) * along), int((width - short) * along), short, short), False


def _place(index: int, number: int) -> float:
    """Where the index-th of some evenly spread places is, from 0 to 1; a single one is in the middle."""
    return index / (number - 1) if number > 1 else 0.5
