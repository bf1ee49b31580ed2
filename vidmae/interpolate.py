"""Fill in the hidden part of clips and score it: `python -m vidmae.interpolate OUT [--shard I/N]` on every rank.

OUT/config.yaml says what is asked for (interpolate_config.py), interpolate_table.py what is written. The clips are dealt out
to N shards times the ranks of each; a part that is done already is not done again, and whoever finishes the last part makes
the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidmae import dist, probe
from vidmae.baselines import Filler, applicable, model_filler
from vidmae.config import DataConfig
from vidmae.encode import write_mp4
from vidmae.interpolate_config import InterpolateConfig
from vidmae.interpolate_table import (
    COLUMNS,
    DIFFERENCE_COLUMNS,
    METHOD_COLUMNS,
    MODEL,
    Row,
    differences_table,
    methods_table,
    read_csv,
    write_csv,
)
from vidmae.layers import load
from vidmae.manifest import COLUMNS as MANIFEST_COLUMNS
from vidmae.manifest import Manifest, read_rows
from vidmae.masking import make_mask, removed_pixels
from vidmae.pictures import save_png, side_by_side, strip
from vidmae.record import SCHEMA, job_id, make_private_folder, read_json, write_json
from vidmae.scenes import PATHS
from vidmae.scores import Judge
from vidmae.trained import Trained, load_trained, untrained
from vidmae.windows import WindowSpec, places, read_windows, spread_windows

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3
BANK = 12  # clips that scenes are made of


@dataclass(frozen=True)
class Clip:
    """One clip of one domain: where it is, and what its rows say of it."""

    domain: str
    place: tuple[str, float, float]
    row: int
    number: int
    content: str
    picture: bool


class Interpolation:
    """A model, a mask and the clips that are to be filled in.

    Args:
        config: What is asked for.
        device: Where the model computes.
    Attributes:
        spec: What a clip is.
        clips: All clips of all domains.
        short: Videos of each domain that are shorter than a clip, left out.
    Raises:
        ValueError: The model cannot fill in, no video is long enough, or the mask hides nothing or everything.
    """

    def __init__(self, config: InterpolateConfig, device: torch.device) -> None:
        self.config = config
        self.trained = trained = load_trained(config.weights, config.settings, device=device)
        self.shape = trained.model.shape
        if trained.config.norm_pix_loss and not config.true_stats:
            raise ValueError("this model fills in normalised patches (model.norm_pix_loss): it says nothing of their "
                             "brightness and contrast; --true-stats takes both from the hidden patches, which flatters it")
        self._mask("", 0)
        if config.track:
            probe.hidden_by(config.mask, config.ratio, self.shape)
        self.spec = window_spec(config, trained)
        self.fillers: dict[str, Filler] = {MODEL: model_filler(trained.model, device)}
        if config.untrained:
            self.fillers["untrained"] = model_filler(untrained(trained.config, config.seed).to(device), device)
        self.short: dict[str, int] = {}
        self.clips = [clip for name, path in config.videos.items() for clip in self._clips(name, Path(path))]

    def _clips(self, domain: str, path: Path) -> list[Clip]:
        manifest, contents = Manifest.read(path), _contents(path)
        windows, self.short[domain] = spread_windows(manifest, self.spec, self.config.per_video)
        shown = _spread(len(windows), self.config.pictures)
        return [Clip(domain, place, w.row, w.number, contents[w.row], i in shown)
                for i, (w, place) in enumerate(zip(windows, places(manifest, windows), strict=True))]

    def _mask(self, content: str, number: int) -> Any:
        """The mask of one clip: a function of the seed and of what the clip is, not of where it stands."""
        words = f"{self.config.seed} {content} {number}".encode()
        seed = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")
        return make_mask(self.config.mask, self.shape, self.config.ratio, 1, generator=torch.Generator().manual_seed(seed))

    def rows(self, clip: Clip, pixels: Any, pictures: Path) -> list[Row]:
        """Fill in one clip by the model and by every baseline that its mask allows: a row of scores each."""
        hidden = removed_pixels(self._mask(clip.content, clip.number), self.shape)[0].numpy()
        judge = Judge(pixels, hidden, (self.shape.t_patch_size, self.shape.patch_size))
        rows = []
        for method, fill in {**self.fillers, **applicable(hidden)}.items():
            filled = fill(pixels, hidden)
            name = {"path": clip.place[0]} if self.config.names else {}
            rows.append({"domain": clip.domain, "row": clip.row + 1, "clip": clip.number, "content": clip.content,
                         "method": method, "motion_px": judge.motion_px, **vars(judge.score(filled)), **name})
            if clip.picture and method == MODEL:
                self.draw(pictures / f"{clip.domain}-row{clip.row + 1:05d}-{clip.number}", pixels, hidden, filled)
        return rows

    def draw(self, stem: Path, pixels: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> None:
        """Write a completion as three rows (.png) and side by side (.mp4)."""
        save_png(strip(pixels, hidden, filled), stem.with_suffix(".png"))
        write_mp4(side_by_side(pixels, hidden, filled), stem.with_suffix(".mp4"),
                  self.spec.target_fps / self.spec.sampling_rate)

    def bank(self) -> list[np.ndarray]:
        """First frames of some clips, evenly spread: what scenes are made of.

        Raises:
            ValueError: None of them can be read.
        """
        some = [self.clips[i].place for i in sorted(_spread(len(self.clips), BANK))]
        read = read_windows(self.spec, some, workers=self.config.workers, limit_s=self.config.read_limit_s)
        frames = {outcome.index: outcome.value[0] for outcome in read if outcome.value is not None}
        if not frames:
            raise ValueError("not one clip can be read to make scenes of (--track)")
        return [frames[i] for i in sorted(frames)]

    def track(self, part: int, parts: int, pictures: Path, say: Any) -> list[Row]:
        """Rows of one part of the scenes of the tracking probe."""
        scenes, rows = probe.scenes_of(self.config.track)[part::parts], list[Row]()
        bank = self.bank() if scenes else []
        frames = probe.whole_hidden(probe.hidden_by(self.config.mask, self.config.ratio, self.shape)) if scenes else []
        for done, (number, path) in enumerate(scenes, 1):
            scene = probe.scene_of(number, path, bank, self.spec.num_frames, frames)
            for name, hidden in probe.masks(scene, self.config.mask, self.config.ratio, self.shape):
                for method, filled, found in probe.scene_rows(scene, number, name, hidden, frames, self.fillers):
                    rows += found
                    if method == MODEL and number == 0 and self.config.pictures:
                        self.draw(pictures / f"scene-{path}-{name}", scene.clip, hidden, filled)
            say(f"{done}/{len(scenes)} scenes")
        return rows


def window_spec(config: InterpolateConfig, trained: Trained) -> WindowSpec:
    """What a clip is: the model's size, and the frame stride that is asked for or that of training."""
    data = trained.data or DataConfig()
    return WindowSpec(num_frames=trained.config.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                      target_fps=data.target_fps, img_size=trained.config.img_size, backend=config.decoder or data.decoder)


def do_part(work: Interpolation, out: Path, part: int, parts: int, say: Any) -> None:
    """Fill in every clip of one part and write its rows."""
    path = part_path(out, part, parts)
    if path.exists():
        say(f"part {part + 1} of {parts} was done before")
        return
    clips, rows, unreadable = work.clips[part::parts], list[Row](), Counter[str]()
    pictures = make_private_folder(out / "pictures") if work.config.pictures else out
    outcomes = read_windows(work.spec, [clip.place for clip in clips], workers=work.config.workers,
                            limit_s=work.config.read_limit_s)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.value is None:
            unreadable[outcome.reason or "unknown"] += 1
        else:
            rows += work.rows(clips[outcome.index], outcome.value, pictures)
        say(f"{done}/{len(clips)} clips")
    order = {name: i for i, name in enumerate(work.config.videos)}
    rows.sort(key=lambda row: (order[row["domain"]], row["row"], row["clip"]))
    make_private_folder(path.parent)
    if work.config.track:
        write_csv(tracking_path(path), work.track(part, parts, pictures, say), probe.COLUMNS)
    write_json(path.with_suffix(".json"), {"unreadable": dict(unreadable)})
    write_csv(path, rows, _columns(work.config))


def merge(work: Interpolation, out: Path, parts: int) -> bool:
    """Make the tables once every part is there; whether it was."""
    paths = [part_path(out, part, parts) for part in range(parts)]
    if not all(path.exists() for path in paths):
        return False
    order = {name: i for i, name in enumerate(work.config.videos)}
    rows = sorted((row for path in paths for row in read_csv(path)),
                  key=lambda row: (order[row["domain"]], int(row["row"]), int(row["clip"])))
    unreadable: Counter[str] = sum((Counter((read_json(path.with_suffix(".json")) or {})["unreadable"]) for path in paths),
                                   Counter())
    if not rows:
        raise ValueError(f"not one clip could be read: {'; '.join(f'{n} x {why}' for why, n in unreadable.items())}")
    methods, differences = methods_table(rows), differences_table(rows)
    write_csv(out / "scores.csv", rows, _columns(work.config))
    write_csv(out / "methods.csv", methods, METHOD_COLUMNS)
    write_csv(out / "differences.csv", differences, DIFFERENCE_COLUMNS)
    tracking = [row for path in paths for row in read_csv(tracking_path(path))] if work.config.track else []
    tracking.sort(key=lambda row: (int(row["scene"]), PATHS.index(row["path"])))
    tracked = probe.summary(tracking)
    if tracking:
        write_csv(out / "tracking.csv", tracking, probe.COLUMNS)
        write_csv(out / "tracking_summary.csv", tracked, probe.SUMMARY_COLUMNS)
    spec, config = work.spec, work.config
    write_json(out / "result.json", {
        "schema": SCHEMA, "kind": "interpolate", "model": work.shape.name, "weights_content": config.weights_content,
        "sizes_from": work.trained.origin, "mask": config.mask, "ratio": config.ratio, "num_frames": spec.num_frames,
        "sampling_rate": spec.sampling_rate, "clip_fps": spec.target_fps / spec.sampling_rate, "clip_s": spec.seconds,
        "true_stats": config.true_stats, "clips": len({(r["domain"], r["row"], r["clip"]) for r in rows}),
        "short_videos": work.short, "unreadable": dict(unreadable), "methods": methods,
        "differences": _without_nan(differences), "tracking": _without_nan(tracked), "job_id": job_id(),
        "finished": time.time()})
    return True


def part_path(out: Path, part: int, parts: int) -> Path:
    """The rows of one part."""
    return out / "parts" / f"of_{parts:04d}" / f"{part:04d}.csv"


def main(argv: list[str] | None = None) -> int:
    """Do this rank's part of this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read."""
    parser = argparse.ArgumentParser(prog="python -m vidmae.interpolate", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shard", type=parse_shard, default=(0, 1))
    parser.add_argument("--say-every-s", type=float, default=10.0)
    args = parser.parse_args(argv)
    try:
        return interpolate(args.out, *args.shard, say_every_s=args.say_every_s)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except Exception:
        traceback.print_exc()
        return EXIT_FAILED
    finally:
        dist.close()


def interpolate(out: Path, shard: int, shards: int, *, say_every_s: float) -> int:
    """Do this rank's part of one shard, and the tables where it was the last."""
    result = out / "result.json"
    if not result.exists():
        config = load(InterpolateConfig, out / "config.yaml")
        ranks = dist.init(config.device)
        work = Interpolation(config, ranks.device)
        parts = shards * ranks.world_size
        say = _Plain(say_every_s if ranks.is_main else None)
        say(describe(work), now=True)
        do_part(work, out, shard * ranks.world_size + ranks.rank, parts, say)
        ranks.barrier()
        if ranks.is_main and not merge(work, out, parts):
            return EXIT_OK  # other shards are at work
        ranks.barrier()
    record = read_json(result) or {}
    return EXIT_INCOMPLETE if record.get("unreadable") else EXIT_OK


def describe(work: Interpolation) -> str:
    """What is about to be done, in one line."""
    spec, config = work.spec, work.config
    whose = "asked for" if config.sampling_rate else "that of training" if work.trained.data else "the paper's in training"
    short = sum(work.short.values())
    return (f"{work.shape.name}, sizes from {work.trained.origin}; {config.mask} mask, ratio {config.ratio:g}; "
            f"{spec.num_frames} frames at sampling rate {spec.sampling_rate} ({whose}) = {spec.seconds:.2f} s; "
            f"{len(work.clips)} clips" + (f"; {short} videos are shorter than a clip and left out" if short else ""))


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` as numbers, I from 0.

    Raises:
        argparse.ArgumentTypeError: It has another form.
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1, such as 0/4")
    return int(first), int(second)


class _Plain:
    """Lines on standard output, those of progress not too often; None keeps silent."""

    def __init__(self, every_s: float | None) -> None:
        self._every_s, self._last = every_s, float("-inf")

    def __call__(self, text: str, *, now: bool = False) -> None:
        if self._every_s is None:
            return
        done, _, total = text.split()[0].partition("/")
        if now or done == total or not total or time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            print(text, flush=True)


def tracking_path(part: Path) -> Path:
    """The rows of the tracking probe beside those of a part."""
    return part.with_suffix(".tracking.csv")


def _without_nan(rows: list[Row]) -> list[Row]:
    """JSON has no NaN: an interval that there is not is null."""
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def _columns(config: InterpolateConfig) -> tuple[str, ...]:
    return (*COLUMNS, "path") if config.names else COLUMNS


def _contents(manifest: Path) -> list[str]:
    """Content hash of every row."""
    place = MANIFEST_COLUMNS.index("content")
    return [row[place] for row in read_rows(manifest)[1]]


def _spread(count: int, wanted: int) -> set[int]:
    """`wanted` of `count` numbers, evenly spread."""
    return {(2 * i + 1) * count // (2 * wanted) for i in range(wanted)} if wanted < count else set(range(count))


if __name__ == "__main__":
    sys.exit(main())
