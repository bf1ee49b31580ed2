"""The pass over the videos of a manifest of which analysis/footage.py makes tables.

    OUT/features-s-1a2b3c4d-20.csv      a row per moment (footage_measures.py), without names; analysis/footage.py gives
                                        the path: 1a2b3c4d is the version of the manifest, 20 the most moments of a recording
    OUT/.features-s-1a2b3c4d-20.jsonl   recordings so far, so that a call that was stopped goes on; it goes once all is done

Recordings are read in processes that are killed where they hang. What cannot be read is counted and left out. The same
recordings, sample and version give the same bytes. Imports no torch: each of those processes imports this module.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vidmae.footage.manifest import Manifest
from vidmae.insight.csv_rows import write_csv
from vidmae.insight.footage_measures import Moment, frame_pairs, measure, moments_of

COLUMNS = tuple(f.name for f in fields(Moment))
SAY_EVERY_S = 0.5


@dataclass(frozen=True)
class Recording:
    """A recording that is to be looked at: its row, where it lies, its decoder, content and length."""

    row: int
    path: str
    decoder: str
    content: str
    seconds: float


@dataclass(frozen=True)
class Look:
    """Looks at one recording: picklable, called in a process of its own.

    Args:
        sample: Moments at most.
    """

    sample: int

    def __call__(self, recording: Recording) -> list[dict[str, Any]]:
        """The moments of a recording, as JSON has them."""
        from vidmae.footage.open_video import open_video

        with open_video(recording.path, recording.decoder) as video:
            moments_s = moments_of(recording.seconds, self.sample)
            pairs = frame_pairs(moments_s, video.fps, video.num_frames)
            found = []
            for second, (first, later) in zip(moments_s, pairs, strict=True):
                frames = video.read([int(first), int(later)])
                passed_s = max(int(later - first), 1) / video.fps
                found.append({"row": recording.row, "content": recording.content, "second": float(f"{second:.6g}"),
                              **measure(frames[0], frames[1], passed_s)})
        return found


def survey(manifest: Path, features: Path, sample: int, *, workers: int, time_limit_s: float,
           progress: Callable[[int, int], object]) -> int:
    """Look at every recording and write the csv; how many could not be read."""
    from vidmae.footage.killable import map_killable

    videos = Manifest.read(manifest)
    recordings = [Recording(row, videos.path(row), videos.decoder(row), f"{int(videos.content[row]):016x}",
                            float(videos.seconds[row])) for row in range(len(videos))]
    journal = features.with_name(f".{features.stem}.jsonl")
    done: dict[int, list[dict[str, Any]] | None] = _kept(journal)
    todo = [recording for recording in recordings if recording.row not in done]
    progress(len(done), len(recordings))
    with journal.open("a", encoding="utf-8") as file:
        for outcome in map_killable(Look(sample), todo, workers=workers, time_limit_s=time_limit_s):
            row = todo[outcome.index].row
            done[row] = outcome.value
            file.write(json.dumps([row, outcome.value]) + "\n")
            file.flush()
            progress(len(done), len(recordings))
    moments = [moment for row in sorted(done) for moment in done[row] or ()]
    if not moments:
        journal.unlink()
        raise ValueError(f"not one of {len(recordings)} recordings of {manifest} could be read; are the files still there?")
    write_csv(features, moments, COLUMNS)
    journal.unlink()
    return sum(found is None for found in done.values())


def _kept(journal: Path) -> dict[int, list[dict[str, Any]] | None]:
    """Recordings of a call that was stopped; a last line that was cut off is left out of the file, too, and so is what was
    measured before a moment had all of COLUMNS."""
    if not journal.exists():
        return {}
    lines = [line for line in journal.read_text(encoding="utf-8").split("\n")[:-1]
             if all(set(moment) == set(COLUMNS) for moment in json.loads(line)[1] or ())]
    journal.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return dict(map(json.loads, lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Do the pass; 0 done, 2 cannot be done as asked."""
    parser = argparse.ArgumentParser(prog="python -m vidmae.insight.footage_survey")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("features", type=Path, help="the csv to write")
    parser.add_argument("--sample", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--time-limit-s", type=float, required=True)
    args = parser.parse_args(argv)
    last_s = float("-inf")

    def say(done: int, total: int) -> None:
        nonlocal last_s
        if done == total or time.monotonic() - last_s >= SAY_EVERY_S:
            last_s = time.monotonic()
            print(f"{done}/{total} recordings", flush=True)

    try:
        lost = survey(args.manifest, args.features, args.sample, workers=args.workers, time_limit_s=args.time_limit_s,
                      progress=say)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    if lost:
        print(f"{lost} recordings could not be read and are left out", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
