"""Give videos their surprise and compare the pairs, on every rank.

    python -m vidmae.insight.surprise.surprise OUT [--shard I/N]

OUT/config.yaml says what is asked for (surprise_config.py), surprise_table.py what is written. The videos are dealt out to N
shards times the ranks of each; a part that is done already is not done again, and whoever finishes the last part makes the
tables.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidmae.insight.csv_rows import Row, read_csv, without_nan, write_csv
from vidmae.insight.pictures import save_png
from vidmae.insight.surprise.pair_list import Place
from vidmae.insight.surprise.surprise_picture import draw
from vidmae.insight.surprise.surprise_table import (
    CONCEPT_COLUMNS,
    KEYS,
    PAIR_COLUMNS,
    by_video,
    concepts_table,
    curves,
    markdown,
    pairs_table,
    primary,
)
from vidmae.insight.surprise.surprises import Surprises
from vidmae.ranks import dist
from vidmae.ranks.shard_program import Say, in_parts, read_unreadable, run, write_unreadable
from vidmae.runs.record import SCHEMA, job_id, write_atomic, write_json
from vidmae.settings.layers import load
from vidmae.settings.programs.surprise_config import SurpriseConfig

PATHS = ("possible_path", "impossible_path")


def do_part(work: Surprises, path: Path, part: int, parts: int, say: Say) -> None:
    """Give every video of one part its surprise and write the rows."""
    numbers, rows, unreadable = list(range(len(work.videos)))[part::parts], list[Row](), Counter[str]()
    for done, outcome in enumerate(work.read(numbers), 1):
        if outcome.value is None:
            unreadable[outcome.reason or "unknown"] += 1
        else:
            rows += work.rows(numbers[outcome.index], outcome.value)
        say(f"{done}/{len(numbers)} clips")
    write_unreadable(path, unreadable)
    rows.sort(key=_order)
    write_csv(path, rows, (*KEYS, *work.methods))


def merge(work: Surprises, out: Path, parts: Sequence[Path]) -> None:
    """Make the tables of the rows of all parts."""
    rows = sorted((row for path in parts for row in read_csv(path, work.methods)), key=_order)
    unreadable = read_unreadable(parts)
    videos = by_video(rows, work.methods)
    pairs = pairs_table(videos, work.pairs)
    if not pairs:
        why = "; ".join(f"{n} x {reason}" for reason, n in unreadable.items())
        raise ValueError(f"of not one pair both videos could be read: {why}")
    concepts, config, spec = concepts_table(pairs), work.config, work.spec
    write_csv(out / "surprise.csv", rows, (*KEYS, *work.methods))
    write_csv(out / "pairs.csv", [_named(row, work) for row in pairs], (*PAIR_COLUMNS, *(PATHS if config.names else ())))
    write_csv(out / "concepts.csv", concepts, CONCEPT_COLUMNS)
    write_atomic(out / "concepts.md", markdown(concepts).encode())
    step_s = config.window_step * spec.sampling_rate / spec.target_fps
    save_png(draw(curves(videos, work.pairs), step_s), out / "surprise.png")
    write_json(out / "result.json", {
        "schema": SCHEMA, "kind": "surprise", "model": work.shape.name, "weights_content": config.weights_content,
        "sizes_from": work.trained.origin, "norm_pix_loss": work.trained.config.norm_pix_loss,
        "context_frames": list(work.contexts), "num_frames": spec.num_frames, "sampling_rate": spec.sampling_rate,
        "clip_fps": spec.target_fps / spec.sampling_rate, "clip_s": spec.seconds, "window_step": config.window_step,
        "scenes": config.scenes, "pairs": len({row["pair"] for row in pairs}), "pairs_left_out": len(work.pairs)
        - len({row["pair"] for row in pairs}), "videos": len(videos), "unreadable": dict(unreadable),
        "primary": without_nan(primary(concepts)),
        "job_id": job_id(), "finished": time.time()})


def main(argv: list[str] | None = None) -> int:
    """Do this rank's part of this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some videos could not be read."""
    return run("vidmae.insight.surprise.surprise", argv, surprise)


def surprise(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Do this rank's part of one shard, and the tables where it was the last."""

    def open_work() -> tuple[Surprises, dist.Ranks]:
        config = load(SurpriseConfig, out / "config.yaml")
        ranks = dist.init(config.device)
        return Surprises(config, ranks.device), ranks

    return in_parts(out, shard, shards, say_every_s, open_work=open_work, describe=describe, do_part=do_part,
                    merge=lambda work, parts: merge(work, out, parts))


def describe(work: Surprises) -> str:
    """What is about to be done, in one line."""
    spec, config = work.spec, work.config
    whose = "asked for" if config.sampling_rate else "that of training" if work.trained.data else "the paper's in training"
    return (f"{work.shape.name}, sizes from {work.trained.origin}; {len(work.pairs)} pairs of {len(work.videos)} videos; "
            f"windows of {spec.num_frames} frames at sampling rate {spec.sampling_rate} ({whose}) = {spec.seconds:.2f} s, "
            f"{config.window_step} frames apart, of which {', '.join(map(str, work.contexts))} are seen")


def _order(row: Row) -> tuple[int, int, int]:
    return int(row["video"]), int(row["context"]), int(row["window"])


def _named(row: Row, work: Surprises) -> Row:
    """A row with the paths of its videos, where they have some."""
    pair = work.pairs[int(row["pair"]) - 1]
    found = [work.videos[number - 1] for number in (pair.possible, pair.impossible)]
    return {**row, **{name: place.path if isinstance(place, Place) else ""
                      for name, place in zip(PATHS, found, strict=True)}}


if __name__ == "__main__":
    sys.exit(main())
