"""From one video to some of its views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.clips.cutting import Output
from vidmae.clips.filling import fill_clips
from vidmae.clips.transforms import Box
from vidmae.clips.views import ViewSpec, view_box, view_frames
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import open_video


@dataclass(frozen=True)
class ViewCutter:
    """Cuts views out of the videos of a manifest."""

    manifest: Manifest
    spec: ViewSpec

    @property
    def decoders(self) -> tuple[str, ...]:
        """Those that read the videos."""
        return self.manifest.decoders

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `cut` fills for each view."""
        return ((self.spec.shape, np.uint8),)

    def cut(self, row: int, views: Sequence[int], clips: np.ndarray) -> None:
        """Cut some views out of one video, which is opened once.

        Args:
            row: The video.
            views: Which of its views, n of them.
            clips: Filled: uint8 [n, T, S, S, 3].
        Raises:
            DecodeError: The video cannot be read.
        """
        spec, content = self.spec, int(self.manifest.source[row])
        with open_video(self.manifest.path(row), self.manifest.decoder(row)) as video:
            indices = np.stack([view_frames(spec, view, content=content, total_frames=video.num_frames,
                                            fps=float(self.manifest.fps[row])) for view in views])

            def look(i: int, height: int, width: int) -> tuple[Box, bool]:
                return view_box(spec, views[i], content=content, height=height, width=width)

            fill_clips(video, indices, clips, look, frame_bytes=self.manifest.frame_bytes(row))
