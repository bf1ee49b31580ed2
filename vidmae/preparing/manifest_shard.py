"""A part of the files of a manifest, as a job of an array checks it: `python -m ... OUT --shard I/N`.

    OUT/config.yaml        what is asked for
    OUT/sources.jsonl      how files are judged; then the files with their labels and what is known of them
    OUT/done-I-of-N.json   this part is checked; its verdicts are in a journal beside the manifest (manifest_build.py)
    OUT/result.json        written by the shard that finds all parts done, behind the manifest; not where sources.jsonl was
                           written anew meanwhile
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vidmae.footage.known.facts import Facts
from vidmae.footage.manifest import Check, Source
from vidmae.footage.manifest_build import build, check_part
from vidmae.ranks.program import EXIT_OK
from vidmae.ranks.shard_program import Say, run
from vidmae.runs.record import RunLockedError, held, write_atomic, write_json
from vidmae.settings.layers import load
from vidmae.settings.programs.prepare_config import ManifestConfig

SOURCES = "sources.jsonl"
OTHERS = "other files have been asked for meanwhile; the same command goes on with them"


def write_sources(out: Path, sources: Sequence[Source], check: Check) -> bool:
    """Write the files that are to be checked; whether they, or how they are judged, are not what stood there.

    Args:
        out: OUT, private: it then has names.
        sources: The files.
        check: How they are judged.
    """
    lines = [json.dumps(each) + "\n" for each in (asdict(check), *([s.path, s.label, asdict(s.facts)] for s in sources))]
    data, path = "".join(lines).encode(), out / SOURCES
    if path.exists() and path.read_bytes() == data:
        return False
    write_atomic(path, data)
    return True


def read_sources(out: Path) -> list[Source]:
    """The files that are to be checked."""
    with (out / SOURCES).open(encoding="utf-8") as file:
        file.readline()
        return [Source(path, label, Facts(**facts)) for path, label, facts in map(json.loads, file)]


def done_path(out: Path, shard: int, shards: int) -> Path:
    """Exists when a part is checked."""
    return out / f"done-{shard}-of-{shards}.json"


def _asked(out: Path) -> bytes:
    """A hash of what is asked for now; the user may ask for other files while the array is at work."""
    return hashlib.sha256((out / SOURCES).read_bytes()).digest()


def work(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Check every `shards`-th file from this one on; where all parts are done, make the manifest."""
    asked = _asked(out)
    config, sources, say = load(ManifestConfig, out / "config.yaml"), read_sources(out), Say(say_every_s)
    manifest, check = Path(config.manifest), Check(config.decoder, config.verify)
    workers, limit_s = config.workers or len(os.sched_getaffinity(0)), config.time_limit_s
    files, unreadable = check_part(sources, manifest, check, shard, shards, workers=workers, time_limit_s=limit_s,
                                   progress=lambda done, total: say(f"{done}/{total} files"))
    if _asked(out) != asked:
        say(OTHERS, now=True)
        return EXIT_OK
    write_json(done_path(out, shard, shards), {"schema": 1, "files": files, "unreadable": unreadable})
    if not all(done_path(out, other, shards).exists() for other in range(shards)):
        say("this part is checked; others are at work", now=True)
        return EXIT_OK
    lock = out / "lock.json"
    try:
        with held(lock, heartbeat=lock, what=f"{manifest} is being made", remedy="nothing"):
            summary, _ = build(sources, manifest, check, workers=workers, time_limit_s=limit_s, progress=lambda *_: None)
            if _asked(out) != asked:
                say(OTHERS, now=True)
                return EXIT_OK
            write_json(out / "result.json", {"schema": 1, "kind": "manifest", "manifest": str(manifest),
                                             "videos": summary.videos, "left_out": summary.unreadable,
                                             "seconds": summary.seconds})
    except RunLockedError:
        say("this part is checked; another shard makes the manifest", now=True)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Do this shard; 0 done, 1 failed, 2 cannot be done as asked."""
    return run("vidmae.preparing.manifest_shard", argv, work)


if __name__ == "__main__":
    sys.exit(main())
