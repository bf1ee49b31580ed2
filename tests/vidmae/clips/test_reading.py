"""Broken videos, hanging and crashing decoders: each costs its clips and nothing else, and what replaces them is drawn."""

import mmap
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import videos
from tests.support.facilities import need
from tests.support.programs.reading import SPEC, loader, read_by_faulty
from vidmae.clips.cutting import Cutter
from vidmae.clips.loader import SUBSTITUTES, Batch
from vidmae.clips.order import place_of
from vidmae.footage import killable
from vidmae.footage.killable import KillableProcess, _serve
from vidmae.footage.manifest import Check, Manifest, find_sources
from vidmae.footage.manifest_build import build


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    need("ffmpeg")
    return videos.h264(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=3)


def make(folder: Path, clip: Path, *names: str) -> Manifest:
    """A manifest of good videos; a fault in a name shows with the decoder `faulty` only."""
    for name in names:
        shutil.copy(clip, folder / f"{name}.mp4")
    build(find_sources(folder), folder / "o" / "s.csv", Check("decord", False), workers=1, time_limit_s=60,
          progress=lambda *_: None)
    return read_by_faulty(folder / "o" / "s.csv")


def row_of(manifest: Manifest, name: str) -> int:
    return next(row for row in range(len(manifest)) if Path(manifest.path(row)).stem == name)


def expected_rows(videos: int, bad: set[int], clips: int) -> list[int]:
    """Rows shown, by the rule in words: the first readable one of the numbers drawn for (epoch, slot)."""
    rows = []
    for position in range(clips):
        place = place_of(position, videos=videos, repeat_aug=2, seed=0)
        drawn = [int(np.random.Generator(np.random.Philox(np.random.SeedSequence((3, 0, place.epoch, place.slot, j))))
                     .integers(videos)) for j in range(SUBSTITUTES)]
        rows.append(next(row for row in [place.row, *drawn] if row not in bad))
    return rows


def rows(batches: list[Batch]) -> list[int]:
    return torch.cat([b.rows for b in batches]).tolist()


def clips(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([b.clips for b in batches])


def opened(manifest: Manifest) -> Counter[str]:
    """How often the decoder `faulty` was asked for each file."""
    log = Path(manifest.path(0)).with_name("opened")
    return Counter(Path(name).stem for name in log.read_text().split()) if log.exists() else Counter()


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, last = {pid}, set()
    while found != last:
        last, found = found, found | {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def all_gone(pids: set[int], within_s: float) -> bool:
    """Whether none of the processes is left (a zombie is gone: its parent has not asked yet)."""
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    deadline = time.monotonic() + within_s
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def damage(manifest: Manifest) -> set[int]:
    """Break five of the videos, each in its way, and leave a trace of none of the names."""
    how = {"b": videos.empty, "d": videos.text, "e": videos.audio_only, "g": videos.truncated, "h": Path.unlink}
    for name, spoil in how.items():
        spoil(Path(manifest.path(row_of(manifest, name))))
    return {row_of(manifest, name) for name in how}


def test_what_replaces_a_broken_file_follows_from_the_seed_alone(tmp_path, clip):
    manifest = make(tmp_path, clip, *"abcdefghij")
    bad = damage(manifest)
    alone = list(loader(manifest, stop=10))
    assert rows(alone) == expected_rows(10, bad, 40)
    found = [s for batch in alone for s in batch.substituted]
    assert {s.row for s in found} == bad and not {s.substitute for s in found} & bad and {s.clips for s in found} == {2}
    assert len(found) == len({(s.epoch, s.slot) for s in found}) == 10  # five videos in each of two epochs
    said = " ".join(s.reason for s in found)
    assert all(why in said for why in ("is empty", "no such file", "cannot read it")) and ".mp4" not in said

    assert torch.equal(clips(list(loader(manifest, stop=10, workers=2))), clips(alone))
    assert torch.equal(clips(list(loader(manifest, start=6, stop=10))), clips(alone)[24:]), "after a restart"
    ranks = [list(loader(manifest, stop=10, world=2, rank=rank, accum=2)) for rank in range(2)]
    parts = [batch for step in range(10) for rank in ranks for batch in rank[step * 2 : step * 2 + 2]]
    assert torch.equal(clips(parts), clips(alone)) and rows(parts) == rows(alone)
    assert torch.equal(torch.cat([b.noise for b in parts]), torch.cat([b.noise for b in alone]))
    assert sum(s.clips for batch in parts for s in batch.substituted) == 20


def test_a_substitute_is_cut_with_the_draws_of_the_place_it_takes(tmp_path, clip):
    manifest = make(tmp_path, clip, *"abcd")
    before = list(loader(manifest, stop=2))
    asked = int(before[0].rows[0])
    Path(manifest.path(asked)).unlink()
    after = list(loader(manifest, stop=2))
    assert torch.equal(before[0].noise, after[0].noise) and torch.equal(before[0].clips[2:], after[0].clips[2:])
    places = [place_of(position, videos=4, repeat_aug=2, seed=0) for position in range(2)]
    pixels, noise = np.empty((2, *SPEC.shape), np.uint8), np.empty((2, 32), np.float32)
    Cutter(manifest, SPEC, 0).cut(int(after[0].rows[0]), places, pixels, noise)
    assert np.array_equal(after[0].clips[:2].numpy(), pixels) and int(after[0].rows[0]) != asked


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("fault", "said"), [
    ("hang", "no answer within 2 s"), ("crash", "crashed (exit code -11)"), ("killed", "crashed (exit code -9)"),
    ("odd", "OSError")])
def test_a_decoder_that_fails_costs_its_video_and_nothing_else(tmp_path, clip, workers, fault, said):
    manifest = make(tmp_path, clip, "a", "b", f"{fault}-secret", "c")
    began = time.monotonic()
    batches = list(loader(manifest, workers=workers, read_limit_s=2.0 if fault == "hang" else 30.0))
    assert time.monotonic() - began < 12
    assert rows(batches) == expected_rows(4, {row_of(manifest, f"{fault}-secret")}, 16)
    found = [s for batch in batches for s in batch.substituted]
    assert len(found) == 2 and all(said in s.reason and "secret" not in s.reason for s in found)


def test_a_hang_is_cut_short_at_the_limit(tmp_path, clip):
    manifest = make(tmp_path, clip, "a", "hang-b")
    places = [place_of(position, videos=2, repeat_aug=2, seed=0) for position in range(2)]
    reader = loader(manifest).dataset.reader
    reader._limit_s = 2.0
    out = np.empty((2, *SPEC.shape), np.uint8), np.empty((2, 32), np.float32)
    assert reader.read(row_of(manifest, "a"), places, *out) is None
    began = time.monotonic()
    assert "no answer within 2 s" in reader.read(row_of(manifest, "hang-b"), places, *out)
    assert 2.0 <= time.monotonic() - began < 3.0
    assert reader.read(row_of(manifest, "a"), places, *out) is None


def test_a_read_is_tried_again_and_what_failed_for_good_is_not(tmp_path, clip):
    manifest = make(tmp_path, clip, "a", "once-b", "odd-c", "d")
    batches = list(loader(manifest, stop=6, read_retries=1))
    assert {s.row for b in batches for s in b.substituted} == {row_of(manifest, "odd-c")}
    assert opened(manifest)["odd-c"] == 2, "a try and a retry in three epochs"
    (tmp_path / "opened").unlink()
    known = list(loader(manifest, stop=6, read_retries=1, unreadable={row_of(manifest, "odd-c"): "as listed"}))
    assert opened(manifest)["odd-c"] == 0
    assert rows(known) == rows(batches) and torch.equal(clips(known), clips(batches))
    assert {s.reason for b in known for s in b.substituted} == {"as listed"}
    (tmp_path / "opened").unlink()
    assert len({s.row for b in loader(manifest, stop=6, read_retries=0) for s in b.substituted}) == 2


def test_a_reader_whose_memory_grows_is_replaced():
    kept = []

    def leak(mib: int) -> int:
        kept.append(mmap.mmap(-1, mib * 2**20, flags=mmap.MAP_PRIVATE))  # not of the heap, in which tests before left room
        for _ in range(mib):
            kept[-1].write(os.urandom(2**20))
        return os.getpid()

    process = KillableProcess(leak, time_limit_s=60, max_growth_bytes=2**26, set_up=lambda: None)
    pids = [process(1)[0] for _ in range(killable.SETTLE_CALLS)]
    assert len(set(pids)) == 1
    start = killable._own_bytes(pids[0])
    sizes = []
    for _ in range(12):
        pids.append(process(15)[0])
        sizes.append(killable._own_bytes(pids[-1]) if process._worker else 0)  # 0: just replaced
        if not process._worker:
            break
    # at the fifth call; at the sixth where the kernel takes idle pages back meanwhile
    assert len(pids) - killable.SETTLE_CALLS in (5, 6) and max(sizes) <= start + 2**26 + 2**22
    assert process(1)[0] != pids[0]
    steady = KillableProcess(lambda _: os.getpid(), time_limit_s=60, max_growth_bytes=2**26, set_up=lambda: None)
    assert len({steady(0)[0] for _ in range(500)}) == 1
    process.end()


def test_a_reader_that_was_killed_while_idle_costs_nothing(tmp_path, clip):
    manifest = make(tmp_path, clip, "a", "b")
    before = descendants(os.getpid())
    steps = iter(loader(manifest))
    first = next(steps)
    (pid,) = descendants(os.getpid()) - before
    os.kill(pid, signal.SIGKILL)
    assert all_gone({pid}, within_s=5)
    batches = [first, *steps]
    assert rows(batches) == expected_rows(2, set(), 16) and not any(b.substituted for b in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_readers_do_not_act_on_the_jobs_signals_and_end_with_the_loader(tmp_path, clip, workers):
    manifest = make(tmp_path, clip, *"abcd")
    before = descendants(os.getpid())
    steps = iter(loader(manifest, workers=workers, stop=8))
    next(steps)
    ours = descendants(os.getpid()) - before
    assert len(ours) == 1 + workers
    for pid in ours:
        for number in killable.JOB_SIGNALS:
            os.kill(pid, number)
    assert len(list(steps)) == 7
    if workers == 0:
        assert descendants(os.getpid()) - before == ours, "none had to be replaced"
    del steps
    assert all_gone(ours, within_s=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_outlives_a_job_that_is_killed_while_its_decoder_hangs(tmp_path, clip, workers):
    manifest = make(tmp_path, clip, *(f"{letter}-good" for letter in "abcdefgh"), "hang-i")
    command = [sys.executable, "-m", "tests.support.programs.reading", str(tmp_path / "o" / "s.csv"), str(workers)]
    with subprocess.Popen(command) as job:
        try:
            deadline = time.monotonic() + 60
            while "hang-i" not in opened(manifest):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            ours = descendants(job.pid)
            assert len(ours) == (4 if workers else 1)
        finally:
            job.kill()
    assert all_gone(ours, within_s=3)


def test_a_process_that_reads_ends_without_a_word_where_its_caller_is_gone_or_ctrl_c_ends_both():
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    ours, theirs = multiprocessing.Pipe()
    ours.send("item")
    _serve(theirs, interrupted)
    ours.close()
    _serve(theirs, str)
