"""From a video or a picture to a clip that a model takes, in the way in which this suite tests models.

    preprocess = vidmae.Preprocessor.of(model)
    print(preprocess)                              what it does, in words
    clip = preprocess("video.mp4", start_s=12.0)   uint8 [T, S, S, 3]
    clip = vidmae.read_clip("video.mp4", start_s=12.0, model=model)

Letters: N frames of a file or an array, T frames of a clip, S px of its side, H W px.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidmae.clips.transforms import crop_resize
from vidmae.clips.views import ViewSpec, view_box
from vidmae.footage.frame_numbers import clip_indices, span_frames
from vidmae.footage.open_video import PILLOW, open_video, probe
from vidmae.footage.video_list import PICTURES
from vidmae.model.encoder import Encoder


@dataclass(frozen=True)
class Preprocessor:
    """Cuts clips for a model.

    Attributes:
        num_frames: T.
        img_size: S, px.
        sampling_rate: Frame stride at target_fps.
        target_fps: Rate that the stride is counted in; 8 of 30 fps are 3.75 frames a second whatever the file's own rate.
        decoder: pyav, decord or torchcodec.
    """

    num_frames: int = 16
    img_size: int = 224
    sampling_rate: int = 8
    target_fps: float = 30.0
    decoder: str = "pyav"

    @classmethod
    def of(cls, model: Encoder, *, sampling_rate: int = 8, target_fps: float = 30.0, decoder: str = "pyav") -> Preprocessor:
        """One whose clips have the size that a model takes."""
        return cls(model.num_frames, model.img_size, sampling_rate, target_fps, decoder)

    @property
    def seconds(self) -> float:
        """How much of a video a clip covers."""
        return span_frames(num_frames=self.num_frames, sampling_rate=self.sampling_rate, target_fps=self.target_fps, fps=1.0)

    def __str__(self) -> str:
        return (f"{self.num_frames} frames, evenly spread over {self.seconds:.2f} s "
                f"({self.target_fps / self.sampling_rate:g} a second; a shorter video shows its last frame again and "
                f"again); the middle square of the whole height or width, resized to {self.img_size} px (bilinear, "
                f"antialiased); uint8, which the model itself normalises. A picture is a clip of {self.num_frames} equal "
                f"frames. Videos are read by {self.decoder}, turned as a player shows them")

    def __call__(self, path: str | Path, start_s: float | None = None) -> Tensor:
        """One clip of a video, or a picture as a clip.

        Args:
            path: The file.
            start_s: Where in the video the clip begins; None: so that it is in the middle.
        Returns:
            uint8 [T, S, S, 3].
        Raises:
            ValueError: The video ends before the start; the message gives the range.
            DecodeError: The file cannot be read; the message does not hold its name.
        """
        if Path(path).suffix.lower() in PICTURES:
            with open_video(path, PILLOW) as picture:
                return self.of_frames(picture.read(np.zeros(1, dtype=np.int64)))
        info = probe(path)
        latest_s = max(info.seconds - self.seconds, 0.0)
        if start_s is not None and not 0 <= start_s < info.seconds:
            raise ValueError(f"start_s is {start_s:g}, allowed: 0 to {latest_s:.2f}, where the last whole clip begins, and "
                             f"up to {info.seconds:.2f}, where the video ends")
        start = (latest_s / 2 if start_s is None else start_s) * info.fps
        with open_video(path, self.decoder) as video:
            span = self.seconds * info.fps
            needed, which = np.unique(clip_indices(start, span, self.num_frames, video.num_frames), return_inverse=True)
            return self._cut(video.read(needed), which)

    def of_frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """A clip of frames that are in memory, evenly spread over all of them.

        Args:
            frames: uint8 [N, H, W, 3], or a picture [H, W, 3].
        Returns:
            uint8 [T, S, S, 3].
        Raises:
            ValueError: Another type or shape.
        """
        array = frames.numpy() if isinstance(frames, Tensor) else np.asarray(frames)
        array = array[None] if array.ndim == 3 else array
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not len(array):
            raise ValueError(f"frames are {array.dtype} of shape {array.shape}, allowed: uint8 [N, H, W, 3] or [H, W, 3]")
        return self._cut(array, clip_indices(0, len(array), self.num_frames, len(array)))

    def _cut(self, frames: np.ndarray, which: np.ndarray) -> Tensor:
        spec = ViewSpec(self.num_frames, self.sampling_rate, self.target_fps, self.img_size)
        box, flip = view_box(spec, 0, content=0, height=frames.shape[1], width=frames.shape[2])
        return crop_resize(frames, which, box, self.img_size, flip=flip)


def read_clip(path: str | Path, start_s: float | None = None, *, model: Encoder | None = None, num_frames: int = 16,
              img_size: int = 224, sampling_rate: int = 8, target_fps: float = 30.0, decoder: str = "pyav") -> Tensor:
    """One clip of a video, or a picture as a clip; see `Preprocessor`.

    Args:
        path: The file.
        start_s: Where in the video the clip begins; None: so that it is in the middle.
        model: Takes the place of num_frames and img_size.
        num_frames, img_size, sampling_rate, target_fps, decoder: See `Preprocessor`.
    Returns:
        uint8 [1, T, S, S, 3], a batch of one clip; `torch.cat` joins several.
    Raises:
        ValueError, DecodeError: See `Preprocessor`.
    """
    if model is not None:
        num_frames, img_size = model.num_frames, model.img_size
    return torch.unsqueeze(Preprocessor(num_frames, img_size, sampling_rate, target_fps, decoder)(path, start_s), 0)
