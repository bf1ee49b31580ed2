"""Files that something has spoiled: none is read wrongly without a word, none ends a job, before the check or after it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support import videos
from tests.support.facilities import need
from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import make_loader
from vidmae.footage.manifest import Check, Manifest, find_sources, unreadable_path
from vidmae.footage.manifest_build import build

KINDS = {"a.mp4": videos.short_gop, "b.webm": videos.vp9, "c.avi": videos.mpeg4_avi, "d.mp4": videos.hevc}
SPEC = ClipSpec(16, 8, 30.0, 16, (0.5, 1.0), (0.75, 1.333), 0.5, 2, "own", 3)


def spoil(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them changed, zeroed, cut off, taken out or put in twice."""
    spoiled = bytearray(data)
    at, size = int(rng.integers(len(data))), int(rng.integers(1, len(data) // 4))
    how = rng.integers(6)
    if how < 2:
        for place in rng.integers(len(data), size=int(10 ** rng.uniform(0, 2.5))).tolist():
            spoiled[place] = int(rng.integers(256))
    elif how == 2:
        spoiled[at:at + size] = bytes(len(spoiled[at:at + size]))
    elif how == 3:
        del spoiled[at:]
    elif how == 4:
        del spoiled[at:at + size]
    else:
        spoiled[at:at] = spoiled[at:at + size]
    return bytes(spoiled)


def checked(folder: Path, out: Path) -> tuple[int, dict[str, str]]:
    summary, _ = build(find_sources(folder), out, Check("auto", True), workers=2, time_limit_s=20, progress=lambda *_: None)
    if not unreadable_path(out).exists():
        return summary.videos, {}
    with unreadable_path(out).open(newline="") as file:
        return summary.videos, {row["path"]: row["reason"] for row in csv.DictReader(file)}


def clips_of(manifest: Path, steps: int) -> tuple[int, int]:
    """Clips that a loader gives, and how many of them come from other videos than asked."""
    loader = make_loader(Manifest.read(manifest), SPEC, seed=0, global_batch=8, micro_batch=8, grad_accum=1, rank=0, world_size=1,
                         start_step=0, stop_step=steps, workers=2, read_limit_s=20, read_retries=0)
    found = [(len(batch.rows), sum(gone.clips for gone in batch.substituted)) for batch in loader]
    return sum(clips for clips, _ in found), sum(gone for _, gone in found)


@pytest.mark.slow
@pytest.mark.parametrize("files", [40, 200])
def test_spoiled_files_cost_no_job(tmp_path, files):
    need("ffmpeg")
    rng, folder = np.random.default_rng(16), tmp_path / "v"
    folder.mkdir()
    whole = {name: make(tmp_path / name).read_bytes() for name, make in KINDS.items()}
    names = [name for name in whole for _ in range(files // len(whole))]
    for number, name in enumerate(names):
        (folder / f"{number:03d}{Path(name).suffix}").write_bytes(spoil(whole[name], rng))
    videos_, reasons = checked(folder, tmp_path / "o/s.csv")
    assert videos_ + len(reasons) == files and 0.1 < len(reasons) / files < 0.95 and all(reasons.values())
    assert not [reason for reason in reasons.values() if "v/" in reason or str(tmp_path) in reason], "no names"
    assert clips_of(tmp_path / "o/s.csv", files // 8)[0] == files, "what passed is read"

    for number, name in enumerate(names):  # sound when they are checked, spoiled when they are read
        (folder / f"{number:03d}{Path(name).suffix}").write_bytes(whole[name])
    assert checked(folder, tmp_path / "o/t.csv")[0] == files
    for number, name in enumerate(names):
        if number % 3:
            (folder / f"{number:03d}{Path(name).suffix}").write_bytes(spoil(whole[name], rng))
    clips, gone = clips_of(tmp_path / "o/t.csv", files // 4)
    assert clips == 2 * files and gone > files // 10, "they are replaced, and counted"
