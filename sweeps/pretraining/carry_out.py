"""Carry out a study: submit its pretraining runs, the cells after them and the last job, as one graph.

On this machine one thing runs after the other. sweeps/scaling.py and sweeps/pretrain.py are such commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.place.experiment import Place, choose_place, folder_problems, warnings
from jobs.place.launch_flags import masked_argv
from jobs.place.scheduler import slurm
from jobs.place.speak import say
from jobs.standing.arrays import ARRAYS
from jobs.standing.follow import wait_for
from jobs.standing.runs import State, why
from jobs.submit import launch
from jobs.submit.budget import keep_to_budget, planned_gpu_h
from jobs.submit.submission import one_launcher
from sweeps.pretraining import pretrain_jobs, study_jobs
from sweeps.pretraining.points import Design, Kind, Point
from sweeps.pretraining.pretraining_run import look_at
from sweeps.pretraining.study import Study, resolve
from sweeps.pretraining.study_show import rows, to_json, total
from sweeps.run import array_submission, last_job
from sweeps.run.clips_first import clips_first
from sweeps.run.show import name_ended, show
from sweeps.run.watch import wait_for as wait_for_cells
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.layers import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Call:
    """A command that submits.

    Attributes:
        kind: Which command it is.
        args: Its flags.
        command: What the user typed, for the record.
        place: Where it runs.
        jobs: Ids of what was submitted.
    """

    kind: Kind
    args: argparse.Namespace
    command: list[str]
    place: Place
    jobs: list[str] = field(default_factory=list)

    def study(self, before: Study | None = None, points: Sequence[Point] = ()) -> Study:
        """What the command means; `points` are the runs of what it meant `before`, as they are once they are submitted."""
        design: Design | None = replace(before.design, points=points) if before else None
        return resolve(self.args, self.command, self.place, say, self.kind, design)

    def note(self, job_ids: Sequence[str]) -> None:
        """Note what was submitted, and say it on standard output."""
        self.jobs += job_ids
        for job_id in job_ids if not self.args.json else []:
            print(job_id, flush=True)


def run(args: argparse.Namespace, argv: list[str], kind: Kind) -> int:
    """Resolve, check, show; then print the scripts, or submit and wait; the exit code.

    Args:
        args: The flags.
        argv: What the user typed.
        kind: Which command it is.
    """
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    call = Call(kind, args, ["python", kind.script, *masked_argv(argv)], place)
    if args.dry_run:
        return dry_run(call.study(), args)
    runs_dir = args.runs_dir.expanduser().absolute()
    if found := folder_problems(runs_dir):
        raise ConfigError(found[0])
    arrays = make_private_folder(runs_dir / ARRAYS)
    if place.cluster == "local":
        return here(call, arrays)
    with one_launcher(arrays):
        study, job = submit_all(call)
    name_all(study)
    if args.wait:
        say("waiting for the last job")
        wait_for(job, show=False)
        return verdict(call.study(study, look_at(study.points)[0]), last_job.needed(job, fresh=False, retry=False)[1])
    next_commands(call)
    return 1 if study.ended or study.cells.ended else 0


def next_commands(call: Call) -> None:
    """What to type next."""
    stop = f"\n  scancel {' '.join(call.jobs)}" if call.jobs else ""
    runs_dir = shlex.quote(str(call.args.runs_dir))
    say(f"next:\n  python jobs/status.py --runs-dir {runs_dir}\n  the same command with --wait{stop}\n"
         f"tables and figures will be in {call.args.out}")


def present(study: Study) -> None:
    """Everything that will run and what it costs, on stderr."""
    for line in dict.fromkeys([*study.points[0].experiment.said, *study.cells.classes.said]):
        say(f"  {line}")
    show(rows(study), words=len(study.design.headings) - 1)
    for line in total(study):
        say(line)
    found = [warning.replace(str(point.run.path), str(point.run.path.parent)) for point in study.points
             for warning in warnings(point.experiment)]
    for warning in dict.fromkeys(found):
        say(f"warning: {warning}")


def within_budget(study: Study, args: argparse.Namespace) -> None:
    """Hold what this call submits against the budget of the profile; see `keep_to_budget`."""
    wanted = study.cells.gpu_h + sum(planned_gpu_h(point.experiment) for point in study.submits)
    keep_to_budget(study.points[0].experiment.profile, args.runs_dir.expanduser().absolute(), wanted,
                   over=args.over_budget, dry_run=args.dry_run)


def dry_run(study: Study, args: argparse.Namespace) -> int:
    """The table on stderr, the batch scripts on stdout; or all of it as one object."""
    present(study)
    within_budget(study, args)
    name_all(study)
    texts = pretrain_jobs.scripts(study.points, study.again, args.max_parallel or 0, study.place.cluster)
    texts += array_submission.scripts(study.cells.sweep, study.cells.batches) if study.cells.batches else []
    if texts and study.place.cluster == "slurm":
        texts.append(study_jobs.last_script(study))
    if args.json:
        print(json.dumps({**to_json(study, {}), "scripts": texts}))
    else:
        print("\n".join(texts), end="\n" if texts else "")
    say("dry run: nothing was written or submitted")
    return 0


def submit_all(call: Call) -> tuple[Study, RunFolder]:
    """Submit what is missing, in the order in which it will run; the study as it is then, and the folder of the last job."""
    study = call.study()
    present(study)
    within_budget(study, call.args)
    study_jobs.write_fractions(study)
    points = pretrain_jobs.pretrain(study.points, study.again, call.args.max_parallel or 0, call.command, say, call.note)
    study = call.study(study, points)
    arrays = _submit_cells(study)
    call.note([array.job_id for array in arrays])
    job, last = study_jobs.submit_last(study, [array.job_id for array in arrays], fresh=bool(call.jobs),
                                       retry=call.args.retry is not None, say=say)
    call.note([last] if last else [])
    if not call.jobs:
        say("nothing to submit")
    if call.args.json:
        told = to_json(study, array_submission.task_ids(arrays))
        print(json.dumps({**told, "jobs": call.jobs, "last": last or None}), flush=True)
    return study, job


def _submit_cells(study: Study) -> list[array_submission.Submitted]:
    """Submit the few-shot cells that are missing, behind the preparation of their clips where that is asked for."""
    plan = study.cells
    if not plan.batches:
        return []
    return array_submission.submit(clips_first(plan, study.fewshot, plan.sweep.command, say), plan.batches, say)


def here(call: Call, arrays: Path) -> int:
    """One thing after the other on this machine."""
    with one_launcher(arrays):
        study = call.study()
        present(study)
        within_budget(study, call.args)
        study_jobs.write_fractions(study)
    points = pretrain_jobs.pretrain_here(study.points, study.again, call.command, say, call.note)
    with one_launcher(arrays):
        study = call.study(study, points)
        cells = _submit_cells(study)
    call.note([array.job_id for array in cells])
    name_all(study)
    if any(s.kind == "active" for s in study.cells.standings) or cells:
        wait_for_cells(call.study(study, points).cells.standings)
    study = call.study(study, points)
    if call.args.json:
        print(json.dumps({**to_json(study, {}), "jobs": call.jobs}), flush=True)
    codes = [launch.run_script((str(ROOT / script), *more), str(Path.cwd()), sys.stderr) for script, *more in study.commands]
    return verdict(study, None, max(codes))


def verdict(study: Study, last: State | None, code: int = 0) -> int:
    """How all of it ended; the exit code."""
    done = sum(point.kind == "done" for point in study.points)
    cells = sum(s.kind == "done" for s in study.cells.standings)
    say(f"{done} of {len(study.points)} pretraining runs and {cells} of {len(study.cells.standings)} cells are done")
    name_all(study)
    if last is not None:
        code = last_job.exit_code(last) or int(not last_job.has_run(last))
        say(f"the last job {last.job_id} is {last.state}, log {last.log}")
    return 1 if done < len(study.points) or cells < len(study.cells.standings) else code


def name_all(study: Study) -> None:
    """Name the runs and cells that ended without a result and are not submitted again."""
    for point in study.ended:
        reason = why(point.state) if point.state else "never submitted"
        say(f"{point.kind}: {point.run.path.name}: {reason}; its cells wait for it")
    waiting = {s.cell.signature for point in study.ended for s in study.cells_of(point)}
    name_ended([s for s in study.cells.ended if s.cell.signature not in waiting], [point.kind for point in study.ended])
