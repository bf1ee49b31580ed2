"""The table of derived numbers that a launcher shows before it submits: ranks, batch, steps, memory, cost."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from jobs.place.experiment import Experiment, memory_gib
from jobs.place.found_data import turns_of
from jobs.place.scheduler import slurm
from jobs.submit.launch import MALLOC
from jobs.submit.step_rows import gpu_of, step_of, step_rows
from vidmae.ranks.precision import AUTO, assumed
from vidmae.runs import cost
from vidmae.settings.config import FootageConfig
from vidmae.settings.schedule import Schedule

Row = tuple[str, str]


def table(e: Experiment) -> list[Row]:
    """Rows of (what, value); the experiment must have no problems."""
    return [*_work_rows(e), *_model_rows(e), *_cost_rows(e), *_ask_rows(e)]


def _work_rows(e: Experiment) -> list[Row]:
    assert e.plan is not None
    r, plan, schedule = e.resources, e.plan, e.plan.schedule
    unit = "GPUs" if r.gpus_per_node else "tasks"
    batch = f"{r.world_size} ranks x {plan.micro_batch} (micro_batch) x {plan.grad_accum} (grad_accum)"
    if e.config.train.micro_batch == "auto":
        batch += " at most: micro_batch auto takes what fits"
    seen = f"{plan.total_clips / plan.clips_per_epoch:,.1f} epochs, {plan.total_clips:,} clips"
    return [
        ("run", _short(e.run.path)),
        *_data_rows(e),
        ("ranks", f"{r.nodes} nodes x {r.tasks_per_node} {unit} = {r.world_size}"),
        ("batch", f"{e.config.train.global_batch} clips = {batch}"),
        *((f"phase {i}", _phase(schedule, i)) for i in range(len(schedule.phases))),
        ("steps", f"{schedule.total_steps:,} in all, {plan.steps_per_epoch:,.2f} per epoch: {seen}"),
    ]


def _data_rows(e: Experiment) -> list[Row]:
    """A line for each data set; of a mixture with its share of the clips, and how they are ordered where not as usual."""
    assert e.plan is not None
    data, lines = e.config.data, []
    turns = turns_of(e.config, e.stocks)
    for i, one in enumerate(e.found):
        line = f"{one.source.name}: {one.summary.videos:,} videos, {one.summary.seconds / 3600:,.1f} h"
        if (taken := e.stocks[i]).videos < one.summary.videos:
            line += f", of which {taken.videos:,} videos, {taken.seconds / 3600:,.1f} h"
        if data.sources:
            line += f", weight {taken.weight:g}, {turns[i] / sum(turns):.1%} of the clips"
        lines.append(f"{line} ({_short(one.source.manifest)})")
    names = "weight", "order", "age_months", "without_child", "clip", "window_frames", "window_clips"
    shown = [(name, getattr(data, name)) for name in names]
    usual = FootageConfig()
    unusual = [f"{name} {list(value) if isinstance(value, tuple) else value}" for name, value in shown
               if value != getattr(usual, name)]
    if unusual:
        lines.append(f"{', '.join(unusual)}: an epoch is {e.plan.clips_per_epoch:,} clips")
    return [("" if i else "data", line) for i, line in enumerate(lines)]


def _phase(schedule: Schedule, i: int) -> str:
    phase, steps = schedule.phases[i], schedule.ends[i] - schedule.start_of(i)
    length = f"{steps:,} steps" if phase.duration.unit == "steps" else f"{phase.duration} = {steps:,} steps"
    parts = [f"{length}, lr {schedule.peaks[i]:.3g} {phase.schedule}"]
    parts += [f"warm-up {schedule.warmups[i]:,} steps"] if schedule.warmups[i] else []
    parts += ["fresh optimizer"] if phase.reset_optimizer else []
    return ", ".join(parts)


def _model_rows(e: Experiment) -> list[Row]:
    assert e.plan is not None
    shape, train = e.config.model.shape(), e.config.train
    precision = assumed(train.precision, on_cpu=e.on_cpu)
    states, activations = memory_gib(e)
    listed = "  ".join(f"ZeRO {stage}: {gib:.2f}" for stage, gib in enumerate(states))
    total = states[train.zero_stage] + activations
    guess = f", {precision} assumed: a run takes what is faster there" if train.precision == AUTO and e.on_cpu else ""
    tokens = f"{shape.num_tokens:,} tokens, {shape.num_kept:,} kept"
    tokens += "" if shape.mask == "random" else f" (mask {shape.mask})"
    tokens += "" if shape.temporal_positions else ", no table of time"
    if shape.decoder_mask_ratio:
        tokens += f", {shape.num_rebuilt:,} of {shape.num_tokens - shape.num_kept:,} hidden ones rebuilt"
    if shape.target == "features":
        tokens += "; features are predicted, of a teacher that sees all tokens"
    every = e.config.checkpoint.memory_steps
    copies = cost.copies_gib(shape, zero_stage=train.zero_stage, precision=precision, nodes=e.resources.nodes)
    on_host = cost.host_gib(shape, precision=precision, world_size=e.resources.world_size, grad_accum=e.plan.grad_accum)
    return [
        ("model", f"{shape.name}: {cost.parameters(shape) / 1e6:,.1f} M parameters, {tokens}"),
        ("memory", f"GiB of states per {'rank' if e.on_cpu else 'GPU'}: {listed}"),
        ("", f"ZeRO {train.zero_stage} with activations of about {activations:.1f} GiB: about {total:.1f} GiB (estimated)"
             + guess),
        *([("", f"the optimizer takes about {on_host * e.resources.tasks_per_node:.1f} GiB of a node's memory (estimated)")]
          if train.offload == "optimizer" else []),
        *([("", f"copies every {every} steps take about {copies:.1f} GiB of a node's memory (estimated)")] if every else []),
    ]


def _cost_rows(e: Experiment) -> list[Row]:
    assert e.plan is not None
    shape, r = e.config.model.shape(), e.resources
    flops = e.plan.total_clips * cost.train_flops_per_clip(shape)
    if e.on_cpu:
        return [("cost", f"{flops / 1e15:,.3g} PFLOP on CPUs; the log shows the time left once it runs")]
    gpu, guess = gpu_of(e)
    time = step_of(e)
    hours = time.gpu_hours(e.plan.total_clips)
    arithmetic = cost.gpu_hours(shape, clips=e.plan.total_clips, peak_tflops=gpu.peak_tflops, mfu=time.mfu.share)
    wall_min = max(1, round(hours / r.world_size * 60))
    fed = "" if time.data_s is not None else ", if the GPUs never wait for clips"
    basis = f"{100 * time.mfu.share:.3g} % MFU of {gpu.peak_tflops:g} TFLOP/s, {gpu.name}{guess}"
    rows = [*step_rows(e),
            ("cost", f"about {hours:,.1f} GPU-hours, {slurm.format_time(wall_min)} of wall time, saving aside{fed}"),
            ("", f"of it arithmetic {arithmetic:,.1f} GPU-hours at {basis}")]
    if r.time_min and wall_min > r.time_min:
        stops = math.ceil(wall_min / r.time_min) - 1
        limit = slurm.format_time(r.time_min)
        rows.append(("", f"longer than the limit of {limit}: saved and requeued {stops} times at least"))
        if e.place.cluster == "slurm" and stops > e.profile.max_requeues:
            rows.append(("", f"more often than --max-requeues {e.profile.max_requeues}: then continue with --retry"))
    return rows


def _ask_rows(e: Experiment) -> list[Row]:
    r = e.resources
    mem = f"{r.mem_mib / 1024:.1f} GiB" if r.mem_mib else "all memory"
    limit = slurm.format_time(r.time_min) if r.time_min else "no limit"
    where = f"partition {r.partition}, {mem} per node" if e.place.cluster == "slurm" else "this machine"
    rows = [("job", f"{where}, {r.cpus_per_task} CPUs per task, {limit}")]
    if e.on_cpu:
        names = " and ".join(MALLOC)
        rows.append(("allocator", f"{names} are set for the ranks: glibc then keeps freed activations mapped"))
    return rows


def show(rows: list[Row]) -> None:
    """The table on stderr: rich on a terminal, plain otherwise."""
    if not sys.stderr.isatty():
        for what, value in rows:
            print(f"  {what:<13} {value}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for what, value in rows:
        grid.add_row(Text(what), Text(value))
    Console(stderr=True).print(grid)


def _short(path: Path) -> str:
    """A path from the current folder on, where it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
