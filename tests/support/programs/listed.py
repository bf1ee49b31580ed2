"""Lists videos that decord reads, without a second process.

    python -m tests.support.programs.listed OUT '[["PATH", "LABEL"], ...]'
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.labelled import in_this_process
from vidmae.footage.manifest import Check, Source
from vidmae.footage.manifest_build import build


def list_videos(out: Path, sources: Sequence[Source]) -> None:
    """Write their manifest."""
    with in_this_process():
        build(sources, out, Check("decord", False), workers=1, time_limit_s=120, progress=lambda *_: None)


if __name__ == "__main__":
    list_videos(Path(sys.argv[1]), [Source(*each) for each in json.loads(sys.argv[2])])
