"""The science: models, clips, training and what is learned about a model. Knows nothing of Slurm or submitit.

As a library, in three lines (vidmae/weights/README.md):

    model = vidmae.load("hvm1@448_none")
    clips = vidmae.read_clip("video.mp4", start_s=12.0, model=model)
    vectors = model.features(clips)

torch is imported when one of these names is used, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidmae.start.numerics import fix_numerics

if TYPE_CHECKING:
    from vidmae.weights.clip_reading import Preprocessor, read_clip
    from vidmae.weights.opening import load

__all__ = ["Preprocessor", "load", "read_clip"]
__version__ = "0.1.0"  # the one place: pyproject.toml reads it here, and so a snapshot of the code has it, too

_HOME = {"load": "vidmae.weights.opening", "read_clip": "vidmae.weights.clip_reading",
         "Preprocessor": "vidmae.weights.clip_reading"}

fix_numerics()


def __getattr__(name: str) -> Any:
    """The names of the library, imported at their first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
