"""A scaling sweep as a table on stderr, and as records: every pretraining run, the cells after it, what all of it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.grid.points import Point
from sweeps.grid.states import Standing
from sweeps.run.show import ENDED, Row, records
from sweeps.run.study import Study, content_of

COLUMNS = ("DATA", "AMOUNT", "SUBSET", "SEED", "VIDEOS", "HOURS", "STEPS", "EPOCHS", "STATE", "COST", "CELLS", "DONE",
           "ACTIVE", "ENDED", "TO SUBMIT", "COST")


def rows(study: Study) -> list[Row]:
    """The table: a line for every pretraining run with the cells that start from it, and a line for all."""
    lines = [(*_of_point(study, point), *_of_cells(study, study.cells_of(point))) for point in study.points]
    everything = study.unit.text(sum(point.flops for point in study.points))
    return [COLUMNS, *lines, ("all", "", "", "", "", "", "", "", f"{len(study.points)} runs", everything,
                              *_of_cells(study, study.cells.standings))]


def _of_point(study: Study, point: Point) -> Row:
    summary = point.portion.summary
    state = f"{point.kind}, again" if point.kind in study.again and point.kind != "new" else point.kind
    return (point.portion.of.name, point.portion.amount.text, point.portion.subset or "whole", str(point.repeat),
            f"{summary.videos:,}", f"{summary.hours:,.2f}", f"{point.steps:,}", f"{point.epochs:,.1f}", state,
            study.unit.text(point.flops))


def _of_cells(study: Study, cells: Sequence[Standing]) -> Row:
    plan = study.cells
    counts = (len(cells), sum(s.kind == "done" for s in cells), sum(s.kind == "active" for s in cells),
              sum(s.kind in ENDED for s in cells), sum(s.cell.signature in plan.submits for s in cells))
    return (*map(str, counts), plan.unit.text(sum(plan.costs[s.cell.signature].flops for s in cells)))


def total(study: Study) -> list[str]:
    """What this call submits and what it costs, and what repeats are."""
    plan = study.cells
    flops = sum(point.flops for point in study.submits)
    cells = [s for s in plan.standings if s.cell.signature in plan.submits]
    cell_flops = sum(plan.costs[s.cell.signature].flops for s in cells)
    both = f", {study.unit.text(flops + cell_flops)} together" if study.unit.peak_tflops == plan.unit.peak_tflops else ""
    said = [study.unit.basis(),
            (f"to submit: {len(study.submits)} pretraining runs ({study.unit.text(flops)}) and {len(cells)} cells "
             f"({plan.unit.text(cell_flops)}){both}; a run that goes on is counted in full")]
    if repeated := max((point.portion.history.repeated for point in study.points if point.portion.history), default=0):
        said.append(f"{repeated} rows repeat the content of another: fractions leave them out, and the whole has them")
    said += amounts(study)
    if study.match == "paper":
        batch = study.points[0].experiment.config.train.global_batch
        said.append(f"the released runs took 64 clips per step on fractions and 256 on the whole; these take {batch} on all")
    if max(point.repeat for point in study.points):
        drawn = {point.portion.subset for point in study.points} - {""}
        same = " and ".join(sorted(drawn - {"random"}) or ["the whole"])
        said.append(f"repeats of {same} are the same videos under other seeds of training"
                    + ("; those of random also draw other recordings" if "random" in drawn else ""))
    return said


def amounts(study: Study) -> list[str]:
    """What the amounts alone would hide, and what is equal between several data sets."""
    said = [line for point in study.points for line in point.portion.said()]
    wholes = list({point.portion.of.name: point.portion.of.summary for point in study.points}.items())
    if len(wholes) > 1:
        shares = {point.portion.amount.share for point in study.points}
        if None not in shares:
            each = ", ".join(f"{summary.hours:,.2f} h of {name}" for name, summary in wholes)
            said.append(f"the same share of several data sets is not the same amount (1 is {each}), so they are not "
                        "compared; --hours gives equal amounts")
        if study.match == "steps":
            said.append(f"all data sets train as many steps as the recipe gives for {wholes[0][0]}, the first of them")
    return list(dict.fromkeys(said))


def to_json(study: Study, task_ids: Mapping[str, str]) -> dict[str, Any]:
    """All runs and cells as JSON; `task_ids`: signature of a cell that was just submitted to its job."""
    plan = study.cells
    cells = records(plan.standings, plan.costs, plan.submits, plan.unit)
    for cell, s in zip(cells, plan.standings, strict=True):
        cell["job_id"] = task_ids.get(s.cell.signature, cell["job_id"])
    return {"cluster": study.place.cluster, "pretraining": [_record(study, point) for point in study.points], "cells": cells}


def _record(study: Study, point: Point) -> dict[str, Any]:
    portion, plan = point.portion, study.cells
    return {"run": point.run.path.name, "path": str(point.run.path), "data": portion.of.name,
            "fraction": None if portion.amount.share is None else float(portion.amount.share),
            "hours_asked": portion.amount.hours, "subset": portion.subset or None, "seed": point.repeat,
            "manifest": str(portion.source.manifest), "videos": portion.summary.videos, "hours": portion.summary.hours,
            "steps": point.steps, "epochs": point.epochs, "phase_steps": _phase_steps(point), "flops": point.flops,
            "gpu_hours": study.unit.hours(point.flops), "state": point.kind, "submit": point in study.submits,
            "job_id": point.state.job_id or None if point.state else None,
            "cells": sum(s.cell.source == content_of(point) for s in plan.standings)}


def _phase_steps(point: Point) -> list[int]:
    schedule = point.experiment.plan.schedule if point.experiment.plan else None
    return [end - schedule.start_of(i) for i, end in enumerate(schedule.ends)] if schedule else []
