"""A shard of the archives of a data set, as a job of an array does it: `python -m ... OUT --shard I/N`.

OUT/config.yaml says what is asked for. The shard that finds all archives there writes the manifest and OUT/result.json.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vidmae.preparing.preparation import Preparation
from vidmae.preparing.prepare_archives import Report, prepare
from vidmae.preparing.prepared_folder import Order
from vidmae.ranks.program import EXIT_OK
from vidmae.ranks.shard_program import EXIT_INCOMPLETE, Say, run
from vidmae.runs.record import write_json
from vidmae.settings.layers import load
from vidmae.settings.programs.prepare_config import PrepareConfig


def work(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Prepare every `shards`-th archive from this one on."""
    config = load(PrepareConfig, out / "config.yaml")
    say = Say(say_every_s)
    how = Preparation(config.fps, config.short_side_px, config.quality, config.seed, config.form)
    order = Order(Path(config.source), how, out, Path(config.manifest), config.archive_mib)
    workers = config.workers or len(os.sched_getaffinity(0))
    summary, report = prepare(order, workers=workers, time_limit_s=config.time_limit_s, shard=shard, shards=shards,
                              tell=lambda done, total: say(f"{done}/{total} s of footage"))
    if summary is None:
        say("this shard's archives are there; others are at work", now=True)
        return EXIT_OK
    write_json(out / "result.json", record_of(report, config))
    return EXIT_INCOMPLETE if report.lost else EXIT_OK


def record_of(report: Report, config: PrepareConfig) -> dict[str, object]:
    """result.json."""
    return {"schema": 1, "kind": "prepare", "manifest": config.manifest, "of_content_sha256": config.source_content,
            "recordings": report.recordings, "frames": report.frames,
            "bytes": report.bytes, "seconds": report.seconds, "unreadable": dict(report.lost), "lost_s": report.lost_s,
            "psnr_db": report.psnr_db, "least_psnr_db": report.least_psnr_db, "ssim": report.ssim}


def main(argv: list[str] | None = None) -> int:
    """Do this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some recordings are lost."""
    return run("vidmae.preparing.prepare_shard", argv, work)


if __name__ == "__main__":
    sys.exit(main())
