"""The middle frame of some clips as small pictures: `python -m vidmae.insight.thumbnails MANIFEST < CONTENTS`.

A program of its own, so that whoever draws pages needs no decoder. It reads content hashes (16 hex digits a line) and writes
a line `{"content": ..., "jpeg": ...}` (base64) for each clip that the manifest has and that can be read. The pictures show
the footage, which may be private: they go to standard output and nowhere else.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vidmae.clips.views import ViewSpec
from vidmae.footage.manifest import Manifest

SIZE_PX = 112
READ_LIMIT_S = 60.0
QUALITY = 85


def rows_of(manifest: Manifest, contents: Sequence[int]) -> np.ndarray:
    """Row of each clip, int64 ascending; of copies the first.

    Raises:
        ValueError: The manifest has none of them.
    """
    known, first = np.unique(manifest.content, return_index=True)
    rows = np.sort(first[np.isin(known, np.array(contents, dtype=np.uint64))])
    if not len(rows):
        raise ValueError(f"the manifest has none of these {len(contents)} clips; is it the one that they are of? (--frames)")
    return rows


def thumbnails(manifest: Manifest, rows: np.ndarray, size_px: int) -> Iterator[tuple[int, bytes]]:
    """Content hash and the centred square of the middle frame, as JPEG, of each clip that can be read.

    Args:
        manifest: The videos.
        rows: int64, each once.
        size_px: Side of a picture.
    """
    from vidmae.clips.view_loader import view_loader  # brings torch, which a wrong manifest need not wait for

    spec = ViewSpec(num_frames=1, sampling_rate=1, target_fps=30.0, img_size=size_px)
    for batch in view_loader(manifest, rows, spec, rank=0, world_size=1, batch=1, workers=0, read_limit_s=READ_LIMIT_S,
                             read_retries=0):
        for row, clip in zip(batch.rows, batch.clips, strict=True):
            data = io.BytesIO()
            Image.fromarray(clip[0].numpy()).save(data, format="JPEG", quality=QUALITY)
            yield int(manifest.content[row]), data.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Run the program; 0 done, 2 the manifest cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m vidmae.insight.thumbnails", description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--size-px", type=int, default=SIZE_PX)
    args = parser.parse_args(argv)
    contents = [int(line, 16) for line in sys.stdin.read().split()]
    try:
        manifest = Manifest.read(args.manifest)
        for content, jpeg in thumbnails(manifest, rows_of(manifest, contents), args.size_px):
            print(json.dumps({"content": f"{content:016x}", "jpeg": base64.b64encode(jpeg).decode()}), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
