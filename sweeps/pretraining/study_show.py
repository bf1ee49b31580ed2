"""A study as a table on stderr, and as records: every pretraining run, the cells after it, what all of it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.grid.states import Standing
from sweeps.pretraining.points import Point
from sweeps.pretraining.study import Study, content_of
from sweeps.run.show import ENDED, Row, records

COLUMNS = ("VIDEOS", "HOURS", "STEPS", "EPOCHS", "STATE", "COST", "CELLS", "DONE", "ACTIVE", "ENDED", "TO SUBMIT", "COST")


def rows(study: Study) -> list[Row]:
    """The table: a line for every pretraining run with the cells that start from it, one for random weights, one for all."""
    lines = [(*_of_point(study, point), *_of_cells(study, study.cells_of(point))) for point in study.points]
    blank = ("",) * (len(study.design.headings) + 3)
    if random := [s for s in study.cells.standings if not s.cell.source]:
        lines.append(("random weights", *blank, "", study.unit.text(0), *_of_cells(study, random)))
    everything = study.unit.text(sum(point.flops for point in study.points))
    return [(*study.design.headings, *COLUMNS), *lines, ("all", *blank, f"{len(study.points)} runs", everything,
                                                         *_of_cells(study, study.cells.standings))]


def _of_point(study: Study, point: Point) -> Row:
    state = f"{point.kind}, again" if point.kind in study.again and point.kind != "new" else point.kind
    return (*point.shown, f"{point.videos:,}", f"{point.hours:,.2f}", f"{point.steps:,}", f"{point.epochs:,.1f}", state,
            study.unit.text(point.flops))


def _of_cells(study: Study, cells: Sequence[Standing]) -> Row:
    plan = study.cells
    counts = (len(cells), sum(s.kind == "done" for s in cells), sum(s.kind == "active" for s in cells),
              sum(s.kind in ENDED for s in cells), sum(s.cell.signature in plan.submits for s in cells))
    return (*map(str, counts), plan.unit.text(sum(plan.costs[s.cell.signature].flops for s in cells)))


def total(study: Study) -> list[str]:
    """What this call submits and what it costs, and what is equal between the runs."""
    plan = study.cells
    flops = sum(point.flops for point in study.submits)
    cells = [s for s in plan.standings if s.cell.signature in plan.submits]
    cell_flops = sum(plan.costs[s.cell.signature].flops for s in cells)
    both = f", {study.unit.text(flops + cell_flops)} together" if study.unit.peak_tflops == plan.unit.peak_tflops else ""
    said = [study.unit.basis(),
            (f"to submit: {len(study.submits)} pretraining runs ({study.unit.text(flops)}) and {len(cells)} cells "
             f"({plan.unit.text(cell_flops)}){both}; a run that goes on is counted in full")]
    return [*said, *study.design.said]


def to_json(study: Study, task_ids: Mapping[str, str]) -> dict[str, Any]:
    """All runs and cells as JSON; `task_ids`: signature of a cell that was just submitted to its job."""
    plan = study.cells
    cells = records(plan.standings, plan.costs, plan.submits, plan.unit)
    for cell, s in zip(cells, plan.standings, strict=True):
        cell["job_id"] = task_ids.get(s.cell.signature, cell["job_id"])
    return {"cluster": study.place.cluster, "pretraining": [_record(study, point) for point in study.points], "cells": cells}


def _record(study: Study, point: Point) -> dict[str, Any]:
    portion, plan, e = point.portion, study.cells, point.experiment
    share = portion.amount.share if portion else None
    settings = {"settings": point.variant.shown} if point.variant.settings else {}
    return {"run": point.run.path.name, "path": str(point.run.path), "data": portion.of.name if portion else e.data.name,
            "fraction": None if share is None else float(share), "hours_asked": portion.amount.hours if portion else None,
            "subset": (portion.subset if portion else "") or None, "seed": point.repeat, **settings,
            "manifest": str(portion.source.manifest) if portion else None, "videos": point.videos, "hours": point.hours,
            "steps": point.steps, "epochs": point.epochs, "phase_steps": _phase_steps(point), "flops": point.flops,
            "gpu_hours": study.unit.hours(point.flops), "state": point.kind, "submit": point in study.submits,
            "job_id": point.state.job_id or None if point.state else None,
            "cells": sum(s.cell.source == content_of(point) for s in plan.standings)}


def _phase_steps(point: Point) -> list[int]:
    schedule = point.experiment.plan.schedule if point.experiment.plan else None
    return [end - schedule.start_of(i) for i, end in enumerate(schedule.ends)] if schedule else []
