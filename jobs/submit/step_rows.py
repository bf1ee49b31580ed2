"""Rows of the table before a submission that say where the time of a step will go, and what the run costs then."""

from __future__ import annotations

from jobs.place.experiment import Experiment
from vidmae.runs import step_time
from vidmae.runs.gpus import GPUS, Gpu, find_gpu

ASSUMED_GPU = "H100"


def gpu_of(e: Experiment) -> tuple[Gpu, str]:
    """The GPU of a job, and a remark in brackets where its kind is not known."""
    gpu = find_gpu(e.resources.gpu_type)
    return (gpu, "") if gpu else (GPUS[ASSUMED_GPU], f" (the kind of GPU is not known, {ASSUMED_GPU} is assumed)")


def step_of(e: Experiment) -> step_time.StepTime:
    """The parts of a step; the experiment has a plan and trains on GPUs."""
    assert e.plan is not None
    r = e.resources
    data = e.config.data
    clip_ms = step_time.clip_cpu_ms(e.summary.clip_cost, min(data.repeat_aug, e.plan.micro_batch), data.repeat_window)
    work = step_time.work_of(e.config, micro_batch=e.plan.micro_batch, grad_accum=e.plan.grad_accum, clip_ms=clip_ms,
                             prepared=e.summary.prepared is not None)
    return step_time.step_time(work, step_time.Machine(gpu_of(e)[0], r.nodes, r.tasks_per_node, r.cpus_per_task))


def step_rows(e: Experiment) -> list[tuple[str, str]]:
    """The parts of a step, the sentence on clips, and the slowest part with what to do about it."""
    time, r = step_of(e), e.resources
    links = time.traffic.reduce_s + time.traffic.gather_s
    link = f", {time.machine.link_gbit:g} Gbit/s between nodes assumed" if r.nodes > 1 else ""
    rows = [
        ("step", f"arithmetic {_ms(time.arithmetic_s)} at {100 * time.mfu.share:.3g} % MFU ({time.mfu.source})"),
        ("", f"memory traffic {_ms(time.memory_s)}, which an MFU includes"),
        ("", f"links {_ms(links)}, {_ms(time.traffic.exposed_s)} of it not hidden (ZeRO {time.work.zero_stage}{link})"),
        *([("", step_time.offload_line(time))] if time.work.offload else []),
        ("", step_time.data_line(time, e.data.name)),
    ]
    if note := step_time.other_clip(e.summary.clip_cost, e.config):
        rows.append(("", note))
    return [*rows, ("slowest", f"{time.slowest}: {step_time.advice(time, e.data.name)}")]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"
