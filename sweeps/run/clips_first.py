"""The labelled clips of a sweep are prepared before its cells start (--prepare): on this machine now, on Slurm by an array
that the cells wait for. What an earlier sweep has prepared is not decoded again."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from jobs.submit import sharding
from jobs.submit.shards_here import Work
from sweeps.grid.estimate import views_of
from sweeps.grid.grid import CLUSTER, PROBES, Cell, preparation_of
from sweeps.run.array_submission import Say, Sweep
from sweeps.run.sweep_plan import Plan
from vidmae.footage.manifest import Row, read_all
from vidmae.labels.shots import read_shots
from vidmae.preparing.preparation import Preparation
from vidmae.ranks.local_program import CONFIG, progress
from vidmae.runs.record import write_atomic
from vidmae.settings.layers import ConfigError, to_yaml

REAL_TIME = 20  # hours of footage that a core prepares in an hour, at least
MOST_JOBS = 64
LEAST_READING_S = 60.0  # of CPU time in all cells, before a word is lost about it


def clips_first(plan: Plan, args: argparse.Namespace, command: Sequence[str], say: Say) -> Sweep:
    """See that the clips of all cells that this call submits are prepared before one of them starts.

    Args:
        plan: What is to be done.
        args: Of sweeps/fewshot.py.
        command: What the user typed, for the record.
        say: Tells people.
    Returns:
        The plan's sweep; where Slurm has to prepare clips, one that waits for that.
    Raises:
        ConfigError: An array prepares clips for another sweep at the moment.
        PrepareError: Nothing can be written.
        RunLockedError: Another call is at the same.
        SlurmError: Slurm refused, or does not answer.
    """
    from vidmae.preparing.clip_pool import ask, is_filled

    waits = []
    for folder, cells in _folders(plan).items():
        how, rows = preparation_of(cells[0].config, args.prepare or 0), wanted_rows(cells)
        if plan.place.cluster == "slurm":
            waits += [job_id] if (job_id := _submit(plan, folder, how, rows, command, say)) else []
            continue
        ask(folder, how, rows)
        if not is_filled(folder):
            _fill_here(folder, how, rows, say)
        else:
            say(f"{len(rows)} clips are prepared already: {folder}")
    return replace(plan.sweep, first=":".join(waits))


def announce(plan: Plan, args: argparse.Namespace, say: Say) -> None:
    """Say which clips the cells of this call read, and where reading the files costs much, what to do about it."""
    for folder, cells in _folders(plan).items():
        subsets = {cell.subset.content: cell.subset for cell in cells}.values()
        sets = {subset.data.name: subset.data for subset in subsets}.values()
        most = sum(subset.clips for subset in subsets) + sum(data.val_videos for data in sets)
        say(f"clips: at most {most:,} are prepared first, in {folder}; all cells read them there")
    reading_s = sum(_reading_s(cell, plan.costs[cell.signature].steps) for cell in _cells(plan))
    if reading_s > LEAST_READING_S and args.prepare is None:
        say(f"reading: about {reading_s / 3600:.1f} h of CPU time, since each cell decodes its clips in every epoch; "
            "--prepare decodes each clip once for all cells")


def wanted_rows(cells: Sequence[Cell]) -> list[Row]:
    """The clips that cells learn from and are tested on, as their manifests have them; each content once."""
    found: dict[str, Row] = {}
    for data in dict.fromkeys(cell.subset.data for cell in cells):
        subsets = {cell.subset.path for cell in cells if cell.subset.data == data and cell.method != CLUSTER}
        rows = read_all(data.manifest)[1] if subsets else []
        if "" not in subsets:
            drawn = {content for path in subsets for clips in read_shots(Path(path)).clips.values() for content in clips}
            rows = [row for row in rows if row.content in drawn]
        found |= {row.content: row for row in (*rows, *read_all(data.val_manifest)[1])}
    return list(found.values())


def _folders(plan: Plan) -> dict[Path, list[Cell]]:
    """The cells that this call submits, by the folder of their clips."""
    found: dict[Path, list[Cell]] = {}
    for cell in _cells(plan):
        if cell.config.data.archives:
            found.setdefault(Path(cell.config.data.archives), []).append(cell)
    return found


def _cells(plan: Plan) -> list[Cell]:
    """The few-shot cells that this call submits."""
    return [s.cell for batch in plan.batches for s in batch.cells if isinstance(s.cell, Cell)]


def _reading_s(cell: Cell, steps: int) -> float:
    data, config = cell.subset.data, cell.config
    if cell.method in PROBES or data.prepared or data.pictures:
        return 0.0
    clips = steps * config.train.global_batch + data.val_videos * views_of(config.evaluate.views)
    return clips * data.clip_ms / 1000


def _fill_here(folder: Path, how: Preparation, rows: Sequence[Row], say: Say) -> None:
    from vidmae.preparing.clip_pool import fill

    seconds = sum(row.seconds for row in rows)
    say(f"first {len(rows)} clips of {seconds / 3600:.2f} h are prepared in {folder}, unless they are there")
    with progress(Console(stderr=True), "s of footage") as show:
        summary, report = fill(folder, how, workers=len(os.sched_getaffinity(0)), tell=show)
    say(f"{summary.videos} clips are prepared there, {report.bytes / 2**30:.2f} GiB; {report.done_before} were there before")
    if report.lost:
        say(f"warning: {sum(report.lost.values())} clips cannot be decoded; cells that need one of them will fail "
            "(clips.unreadable.csv there)")


def _submit(plan: Plan, folder: Path, how: Preparation, rows: Sequence[Row], command: Sequence[str], say: Say) -> str:
    """Submit the array that prepares what is missing, or attach to the one that does; its id, or empty: all is there."""
    from vidmae.preparing.clip_pool import ask, config_of, is_filled, not_asked

    seconds = sum(row.seconds for row in rows)
    resources = replace(plan.classes.trained, nodes=1, gpus_per_node=0, tasks_per_node=1)
    jobs = min(MOST_JOBS, max(1, math.ceil(seconds / 3600 / REAL_TIME / max(1, resources.cpus_per_task))))
    work = Work("vidmae.preparing.prepare_shard", folder, jobs, "cpu", 0)
    target, flags = sharding.Target(plan.place, plan.sweep.profile, None, resources), argparse.Namespace(max_parallel=0)
    active = sharding.active_array(sharding.make_request(work, target, flags)) if folder.exists() else None
    if active and not_asked(folder, rows):
        raise ConfigError(f"array {active} prepares clips for another sweep in {folder}; the same command works once it has "
                          "ended")
    if not active:
        ask(folder, how, rows)
        if is_filled(folder):
            say(f"{len(rows)} clips are prepared already: {folder}")
            return ""
        write_atomic(folder / CONFIG, to_yaml(config_of(folder, how)).encode())
    return sharding.submit(work, target, flags, command, Console(stderr=True))
