"""What status, logs and cancel take: a run, all cells of an array, or the shards of an output, each shown as a run.

An output (jobs/submit/sharding.py) keeps its arrays in OUT/submitted.json as a run keeps its jobs in run.json: job A_i is
that of shard i. How far a shard is and why it failed stands in its log alone.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from jobs.standing.runs import SUBMITTED, all_runs, failure_of, find_run, progress, submissions
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.layers import ConfigError

PATTERN = re.compile(r"[*?\[]")
CLIPS = re.compile(r"^(\d+)/(\d+) (?:clips|files|s of footage)$", re.MULTILINE)
ERROR = re.compile(r"^(?:error: |[\w.]+Error: ).*", re.MULTILINE)


@dataclass(frozen=True)
class ShardRun(RunFolder):
    """One shard of an output, by its number from 0; the folder and what lies in it are those of all shards."""

    number: int

    @property
    def record(self) -> Path:
        """The arrays that were submitted."""
        return self.path / SUBMITTED


def find_runs(given: str, runs_dir: Path) -> list[RunFolder]:
    """What a user means: one run, see `find_run`; or several.

    Args:
        given: A run; a pattern of run ids with *, ? or [ ]; an array's job id, for all cells that were last submitted in
            it; or an output, for the shards of its newest array.
        runs_dir: Folder of the runs.
    Raises:
        ConfigError: Nothing fits, or several runs do.
    """
    if shards := shards_of(Path(given).absolute()):
        return list(shards)
    if PATTERN.search(given) and not Path(given).exists():
        every = all_runs(runs_dir.absolute())
        if not (fit := [run for run in every if fnmatch.fnmatchcase(run.path.name, given)]):
            raise ConfigError(f"none of {len(every)} runs in {runs_dir} fits {given!r} (--runs-dir names another folder)")
        return list(fit)
    if given.isdecimal():
        jobs = [(run, str((submissions(run) or [{}])[-1].get("job_id"))) for run in all_runs(runs_dir.absolute())]
        cells = [run for run, job_id in jobs if job_id != given and slurm.base_id(job_id) == given]
        if cells and not any(run.path.name == given for run, _ in jobs):
            return cells
    return [find_run(given, runs_dir)]


def arrays_of(out: Path) -> list[dict[str, Any]]:
    """The arrays of an output, oldest first; empty for any other folder."""
    return list((read_json(out / SUBMITTED) or {}).get("submissions", []))


def shards_of(out: Path) -> list[ShardRun]:
    """The shards of the newest array of an output."""
    arrays = arrays_of(out)
    return [ShardRun(out, number) for number in range(arrays[-1]["shards"])] if arrays else []


@submissions.register
def _(run: ShardRun) -> list[dict[str, Any]]:
    return [{**array, "job_id": f"{array['job_id']}_{run.number}" if array["job_id"] else None}
            for array in arrays_of(run.path) if run.number < array["shards"]]


@progress.register
def _(run: ShardRun) -> dict[str, Any]:
    """The last `3/10 clips` of its newest job."""
    newest = submissions(run)[-1]["job_id"]
    found = CLIPS.findall("\n".join(_logs(run, newest))) if newest else []
    return {"step": int(found[-1][0]), "total_steps": int(found[-1][1])} if found else {}


@failure_of.register
def _(run: ShardRun, job_id: str) -> str:
    return next(iter(reversed(errors_of(run, job_id))), "")


def errors_of(run: RunFolder, job_id: str) -> list[str]:
    """Lines of the logs of a job, from all of its ranks, that tell of an error."""
    return [line for log in _logs(run, job_id) for line in ERROR.findall(log)]


def _logs(run: RunFolder, job_id: str) -> list[str]:
    paths = sorted((run.submit / job_id).glob(f"{job_id}_*_log.out"))
    return [path.read_text(errors="replace") for path in paths]
