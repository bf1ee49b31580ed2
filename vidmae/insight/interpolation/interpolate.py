"""Fill in the hidden part of clips and score it, on every rank.

    python -m vidmae.insight.interpolation.interpolate OUT [--shard I/N]

OUT/config.yaml says what is asked for (interpolate_config.py), interpolate_table.py what is written. The clips are dealt out
to N shards times the ranks of each; a part that is done already is not done again, and whoever finishes the last part makes
the tables.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidmae.clips.windows import read_windows
from vidmae.insight.csv_rows import Row, read_csv, without_nan, write_csv
from vidmae.insight.interpolation import tracking_probe
from vidmae.insight.interpolation.interpolate_table import (
    COLUMNS,
    DIFFERENCE_COLUMNS,
    DOMAIN_COLUMNS,
    METHOD_COLUMNS,
    NUMBERS,
    differences_table,
    domains_table,
    methods_table,
)
from vidmae.insight.interpolation.interpolation import Interpolation
from vidmae.insight.interpolation.scenes import PATHS
from vidmae.ranks import dist
from vidmae.ranks.shard_program import Say, in_parts, read_unreadable, run, write_unreadable
from vidmae.runs.record import SCHEMA, job_id, make_private_folder, write_json
from vidmae.settings.layers import load
from vidmae.settings.programs.interpolate_config import InterpolateConfig


def do_part(work: Interpolation, out: Path, path: Path, part: int, parts: int, say: Say) -> None:
    """Fill in every clip of one part and write its rows."""
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
    if work.config.track:
        write_csv(tracking_path(path), work.track(part, parts, pictures, say), tracking_probe.COLUMNS)
    write_unreadable(path, unreadable)
    write_csv(path, rows, _columns(work.config))


def merge(work: Interpolation, out: Path, parts: Sequence[Path]) -> None:
    """Make the tables of the rows of all parts."""
    order = {name: i for i, name in enumerate(work.config.videos)}
    rows = sorted((row for path in parts for row in read_csv(path, NUMBERS)),
                  key=lambda row: (order[row["domain"]], int(row["row"]), int(row["clip"])))
    unreadable = read_unreadable(parts)
    if not rows:
        raise ValueError(f"not one clip could be read: {'; '.join(f'{n} x {why}' for why, n in unreadable.items())}")
    methods, differences = methods_table(rows), differences_table(rows)
    write_csv(out / "scores.csv", rows, _columns(work.config))
    write_csv(out / "methods.csv", methods, METHOD_COLUMNS)
    write_csv(out / "differences.csv", differences, DIFFERENCE_COLUMNS)
    domains = domains_table(rows)
    if domains:
        write_csv(out / "domains.csv", domains, DOMAIN_COLUMNS)
    tracking = [row for path in parts for row in read_csv(tracking_path(path), NUMBERS)] if work.config.track else []
    tracking.sort(key=lambda row: (int(row["scene"]), PATHS.index(row["path"])))
    tracked = tracking_probe.summary(tracking)
    if tracking:
        write_csv(out / "tracking.csv", tracking, tracking_probe.COLUMNS)
        write_csv(out / "tracking_summary.csv", tracked, tracking_probe.SUMMARY_COLUMNS)
    spec, config = work.spec, work.config
    write_json(out / "result.json", {
        "schema": SCHEMA, "kind": "interpolate", "model": work.shape.name, "weights_content": config.weights_content,
        "sizes_from": work.trained.origin, "mask": config.mask, "ratio": config.ratio,
        "hidden_tokens": work.hidden_tokens, "tokens": work.shape.num_tokens, "num_frames": spec.num_frames,
        "sampling_rate": spec.sampling_rate, "clip_fps": spec.target_fps / spec.sampling_rate, "clip_s": spec.seconds,
        "true_stats": config.true_stats, "clips": len({(r["domain"], r["row"], r["clip"]) for r in rows}),
        "short_videos": work.short, "unreadable": dict(unreadable), "methods": methods,
        "differences": without_nan(differences), "domains": without_nan(domains), "tracking": without_nan(tracked),
        "job_id": job_id(), "finished": time.time()})


def main(argv: list[str] | None = None) -> int:
    """Do this rank's part of this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read."""
    return run("vidmae.insight.interpolation.interpolate", argv, interpolate)


def interpolate(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Do this rank's part of one shard, and the tables where it was the last."""

    def open_work() -> tuple[Interpolation, dist.Ranks]:
        config = load(InterpolateConfig, out / "config.yaml")
        ranks = dist.init(config.device)
        return Interpolation(config, ranks.device), ranks

    return in_parts(out, shard, shards, say_every_s, open_work=open_work, describe=describe,
                    do_part=lambda work, *part: do_part(work, out, *part), merge=lambda work, parts: merge(work, out, parts))


def describe(work: Interpolation) -> str:
    """What is about to be done, in one line."""
    spec, config = work.spec, work.config
    whose = "asked for" if config.sampling_rate else "that of training" if work.trained.data else "the paper's in training"
    short = sum(work.short.values())
    return (f"{work.shape.name}, sizes from {work.trained.origin}; {config.mask} mask hides {work.hidden_tokens} of "
            f"{work.shape.num_tokens} tokens; "
            f"{spec.num_frames} frames at sampling rate {spec.sampling_rate} ({whose}) = {spec.seconds:.2f} s; "
            f"{len(work.clips)} clips" + (f"; {short} videos are shorter than a clip and left out" if short else ""))


def tracking_path(part: Path) -> Path:
    """The rows of the tracking probe beside those of a part."""
    return part.with_suffix(".tracking.csv")


def _columns(config: InterpolateConfig) -> tuple[str, ...]:
    return (*COLUMNS, "path") if config.names else COLUMNS


if __name__ == "__main__":
    sys.exit(main())
