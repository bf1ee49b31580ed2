"""Decoders with every fault that was seen, by the file's name; run as a program: a loader that comes to hang.

    python -m tests.support.programs.reading MANIFEST WORKERS
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import make_loader
from vidmae.footage import open_video
from vidmae.footage.decoders.with_decord import DecordReader
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import DecodeError

SPEC = ClipSpec(num_frames=4, sampling_rate=8, target_fps=30.0, img_size=32, crop_area=(0.5, 1.0), crop_aspect=(0.75, 1.333),
                flip_prob=0.5, repeat_aug=2, repeat_window="own", num_tokens=32)
SLEEP_WITH_THE_INTERPRETER_LOCK = ctypes.PyDLL(None).sleep


class Faulty(DecordReader):
    """decord with faults; each open leaves a line in `opened` beside the file."""

    def __init__(self, path: Path) -> None:
        fault = path.stem.partition("-")[0]
        log = path.with_name("opened")
        with log.open("a") as f:
            f.write(f"{path.name}\n")
        if fault == "hang":
            SLEEP_WITH_THE_INTERPRETER_LOCK(600)
        if fault == "crash":
            faulthandler.disable()  # pytest has it on
            ctypes.string_at(0)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "odd":
            raise OSError(5, "a text that names the file", str(path))
        if fault == "once" and log.read_text().count(path.name) == 1:
            raise DecodeError("it fails the first time")
        super().__init__(path)


def loader(manifest: Manifest, *, G: int = 4, world: int = 1, rank: int = 0, accum: int = 1, start: int = 0, stop: int = 4,
           workers: int = 0, **options: Any) -> Any:
    return make_loader(manifest, SPEC, seed=0, global_batch=G, micro_batch=G // world // accum, grad_accum=accum, rank=rank,
                       world_size=world, start_step=start, stop_step=stop, workers=workers,
                       **{"read_limit_s": 60.0, "read_retries": 0, **options})


def read_by_faulty(path: Path) -> Manifest:
    """A manifest whose videos the decoder with faults reads."""
    return replace(Manifest.read(path), decoders=("faulty",))


open_video._READERS["faulty"] = Faulty

if __name__ == "__main__":
    for _ in loader(read_by_faulty(Path(sys.argv[1])), workers=int(sys.argv[2]), stop=1000, read_limit_s=600.0):
        pass
