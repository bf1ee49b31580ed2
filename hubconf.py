"""What torch.hub finds here: `torch.hub.load("OWNER/vidmae", "load", "hvm1@448_none")`, or of a clone `source="local"`.

It is `vidmae.load` (vidmae/weights/README.md): any published name, file, folder or run as an encoder.
"""

from __future__ import annotations

from typing import Any

dependencies = ["torch", "numpy", "safetensors", "yaml"]


def load(source: str, **options: Any) -> Any:
    """Open weights as an encoder; see `vidmae.load` for the options.

    Args:
        source: A name of published weights, `hf://owner/name/file`, a file, a folder, or a run.
        options: img_size, num_frames, pool, inflated, device, say.
    """
    import vidmae

    return vidmae.load(source, **options)
