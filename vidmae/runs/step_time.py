"""Where the time of one optimizer step will go, before it runs: arithmetic, memory, gradients on the links, clips.

    GPU      |==== arithmetic at an MFU, or memory traffic, whichever is longer ====|= links, not hidden =|= offload =|
    loader   |=============== global_batch / GPUs clips, read ahead meanwhile ===============|
    step     the longer of the two; what the loader is longer is `data_wait` in metrics.jsonl

A measured MFU holds the memory traffic of its step in it, so the two are not added. No torch: a launcher shows this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vidmae.runs import cost
from vidmae.runs.gpus import Gpu, find_gpu
from vidmae.settings.config import PretrainConfig
from vidmae.settings.sizes import ModelShape

ASSUMED_MFU = 0.4
ASSUMED_LINK_GBIT = 200.0
REACHED = 0.8  # assumed share of a data sheet's bandwidth that a long transfer reaches, of memory and links alike
MEASURED_MFU = Path(__file__).with_name("measured_mfu.yaml")
BUCKET_NUMBERS = 50_000_000  # gradients that a GPU sends at a time: ranks/engine.py tells deepspeed so
ADAM_BYTES = 28  # per parameter and update: reads gradient, weight and both averages, writes the last three, in float32
HOST_GB_S = 300.0  # assumed of the memory of a node, all GPUs together: 8 channels of DDR5-4800 have 307
CORE_GB_S = 25.0  # assumed of a core that updates weights; measured 28, AdamW with two threads on an AMD EPYC (Zen 4)
ACCESSES = 5  # of a number that is kept for the backward pass: written and read, read again, its gradient written and read


@dataclass(frozen=True)
class Machine:
    """What a job gets.

    Attributes:
        gpu: Its kind of GPU.
        nodes: Nodes.
        gpus_per_node: GPUs of each, one rank for each GPU.
        cores_per_gpu: CPU cores for each GPU.
        link_gbit: Speed of a node's link to the others, all its adapters together, one way, Gbit/s.
    """

    gpu: Gpu
    nodes: int
    gpus_per_node: int
    cores_per_gpu: int
    link_gbit: float = ASSUMED_LINK_GBIT

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Work:
    """What one optimizer step is.

    Attributes:
        shape: The model.
        micro_batch: Clips per rank and forward pass.
        grad_accum: Forward passes per step.
        precision: fp32, bf16 or fp16.
        zero_stage: DeepSpeed ZeRO.
        checkpointing: Blocks are computed again in the backward pass: 0 none, 1 all, N every N-th.
        workers: Loader processes per rank.
        clip_cpu_ms: CPU time of one clip, from file to frames, milliseconds; None where it is not known.
        prepared: Clips come from footage that is prepared already.
        offload: The optimizer lies in the host's memory, and the CPU updates the weights.
    """

    shape: ModelShape
    micro_batch: int
    grad_accum: int
    precision: str
    zero_stage: int
    checkpointing: int
    workers: int
    clip_cpu_ms: float | None
    prepared: bool = False
    offload: bool = False

    @property
    def clips(self) -> int:
        """Clips of a step per rank."""
        return self.micro_batch * self.grad_accum


def work_of(config: PretrainConfig, *, micro_batch: int, grad_accum: int, clip_ms: float | None,
            prepared: bool = False) -> Work:
    """The step of a configuration on GPUs, where train.precision auto is bf16.

    Args:
        config: The experiment.
        micro_batch: Clips per rank and forward pass.
        grad_accum: Forward passes per step.
        clip_ms: CPU time of one clip, milliseconds, or None.
        prepared: See `Work`.
    """
    train = config.train
    precision = "bf16" if train.precision == "auto" else train.precision
    return Work(config.model.shape(), micro_batch, grad_accum, precision, train.zero_stage,
                int(config.model.activation_checkpointing), config.data.workers, clip_ms, prepared,
                train.offload == "optimizer")


@dataclass(frozen=True)
class Mfu:
    """Share of the peak that arithmetic reaches, and where the number is from."""

    share: float
    source: str


@dataclass(frozen=True)
class Traffic:
    """Seconds that gradients and weights are on the links in one step, as if nothing else ran, by what is sent.

    Attributes:
        reduce_s: Gradients: all-reduce or reduce-scatter.
        gather_s: Weights: all-gather.
        exposed_s: Seconds of both in which the GPU waits; the rest is hidden behind arithmetic.
        gigabytes: What a rank sends.
    """

    reduce_s: float
    gather_s: float
    exposed_s: float
    gigabytes: float


@dataclass(frozen=True)
class Offload:
    """Seconds that an optimizer in the host's memory takes in one step, as if nothing else ran; 0 without one.

    Attributes:
        down_s: Gradients on their way to the host.
        update_s: The CPU updates the weights.
        up_s: Weights on their way back.
        exposed_s: Seconds of all three in which the GPU waits; gradients travel during the backward pass.
        gigabytes: What passes the GPU's link to its host, both ways.
    """

    down_s: float = 0.0
    update_s: float = 0.0
    up_s: float = 0.0
    exposed_s: float = 0.0
    gigabytes: float = 0.0

    @property
    def whole_s(self) -> float:
        """All three, one after the other."""
        return self.down_s + self.update_s + self.up_s


@dataclass(frozen=True)
class StepTime:
    """The parts of one step of one rank, seconds.

    Attributes:
        work: The step.
        machine: Where it runs.
        mfu: What the arithmetic assumes.
        arithmetic_s: Matrix products at `mfu`.
        memory_s: Weights, optimizer states and activations through the GPU's memory.
        traffic: Gradients and weights on the links.
        offload: An optimizer in the host's memory.
    """

    work: Work
    machine: Machine
    mfu: Mfu
    arithmetic_s: float
    memory_s: float
    traffic: Traffic
    offload: Offload

    @property
    def readers(self) -> int:
        """Cores of a rank that read clips at the same time."""
        return min(self.machine.cores_per_gpu, max(1, self.work.workers))

    @property
    def data_s(self) -> float | None:
        """Until the loader has the clips of a step; None where the CPU time of a clip is not known."""
        return None if self.work.clip_cpu_ms is None else self.work.clips * self.work.clip_cpu_ms / 1000 / self.readers

    @property
    def gpu_s(self) -> float:
        """A step whose clips are at hand."""
        return max(self.arithmetic_s, self.memory_s) + self.traffic.exposed_s + self.offload.exposed_s

    @property
    def step_s(self) -> float:
        """The whole step; without loader processes the rank reads itself, and the GPU waits for every clip."""
        data_s = self.data_s or 0.0
        return max(self.gpu_s, data_s) if self.work.workers else self.gpu_s + data_s

    @property
    def wait(self) -> float:
        """Share of the step in which the GPU waits for clips, 0 to 1: what `data_wait` will be."""
        return 1 - self.gpu_s / self.step_s

    @property
    def wanted_clips_per_s(self) -> float:
        """Clips per second that one GPU takes where it never waits."""
        return self.work.clips / self.gpu_s

    @property
    def fed_clips_per_s(self) -> float | None:
        """Clips per second that the cores of one GPU read."""
        return self.work.clips / self.data_s if self.data_s else None

    @property
    def slowest(self) -> str:
        """What a shorter step needs to be shorter: data, links, offload, memory or arithmetic."""
        if self.data_s is not None and self.data_s > self.gpu_s:
            return "data"
        waits = {"links": self.traffic.exposed_s, "offload": self.offload.exposed_s}
        longest = max(waits, key=lambda part: waits[part])
        if waits[longest] > max(self.arithmetic_s, self.memory_s):
            return longest
        return "memory" if self.memory_s > self.arithmetic_s else "arithmetic"

    def gpu_hours(self, clips: float) -> float:
        """GPU-hours in which all ranks together train on so many clips."""
        return clips / self.work.clips * self.step_s / 3600


def step_time(work: Work, machine: Machine, *, mfu: Mfu | None = None, bucket_numbers: int = BUCKET_NUMBERS) -> StepTime:
    """Work out the parts of a step.

    Args:
        work: The step.
        machine: Where it runs.
        mfu: Share of the 16-bit peak; None: the measured one, else the assumption.
        bucket_numbers: Gradients that are sent at a time.
    Returns:
        The parts. Arithmetic in float32 has half of the 16-bit peak (TF32).
    """
    mfu = mfu or find_mfu(machine.gpu, work.shape.name, work.micro_batch)
    flops = work.clips * cost.train_flops_per_clip(work.shape)
    again = work.clips * cost.recomputed_flops_per_clip(work.shape, work.checkpointing)
    peak = machine.gpu.peak_tflops * 1e12 * (0.5 if work.precision == "fp32" else 1.0)
    arithmetic_s = (flops + again) / (peak * mfu.share)
    memory_s = memory_bytes(work, machine.world_size) / (machine.gpu.memory_gb_s * 1e9 * REACHED)
    return StepTime(work, machine, mfu, arithmetic_s, memory_s, link_traffic(work, machine, arithmetic_s, bucket_numbers),
                    offload_time(work, machine, arithmetic_s) if work.offload else Offload())


def memory_bytes(work: Work, world_size: int) -> float:
    """Bytes that one step moves through a GPU's memory at least.

    Each micro-batch reads the weights twice (forward, backward), writes and reads the gradients, and moves the numbers that
    `cost.activation_gib` counts ACCESSES times. The update moves ADAM_BYTES per parameter, of a rank's share where the
    optimizer is sharded; none where the CPU does it. A teacher adds `cost.teacher_bytes`.
    """
    weight = _number_bytes(work)
    activations = cost.activation_gib(work.shape, micro_batch=work.micro_batch, precision=work.precision,
                                      checkpointing=work.checkpointing) * cost.GIB
    parameters = cost.parameters(work.shape)
    update = 0.0 if work.offload else ADAM_BYTES * parameters / (world_size if work.zero_stage else 1)
    teacher = cost.teacher_bytes(work.shape, clips=work.clips, passes=work.grad_accum, precision=work.precision,
                                 number=weight, averaged=0.0 if work.offload else 1 / (world_size if work.zero_stage else 1))
    return work.grad_accum * (4 * weight * parameters + ACCESSES * activations) + update + teacher


def ring_s(size_bytes: float, machine: Machine, *, passes: int) -> float:
    """Seconds of a collective over all ranks in rings, long messages.

    A rank sends passes * (n - 1) / n of the size, n = ranks. It leaves each GPU once, and each node once, however the rings
    are laid; the slower of the two links counts.

    Args:
        size_bytes: Of the whole array on one rank.
        machine: Its links.
        passes: 2 for an all-reduce, 1 for a reduce-scatter or an all-gather.
    Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 69(2);
        NVIDIA nccl-tests, doc/PERFORMANCE.md.
    """
    n = machine.world_size
    sent = passes * (n - 1) / n * size_bytes
    inside_s = sent / (machine.gpu.link_gb_s * 1e9) if machine.gpus_per_node > 1 else 0.0
    between_s = sent / (machine.link_gbit / 8 * 1e9) if machine.nodes > 1 else 0.0
    return max(inside_s, between_s) / REACHED


def link_traffic(work: Work, machine: Machine, arithmetic_s: float, bucket_numbers: int = BUCKET_NUMBERS) -> Traffic:
    """Gradients and weights on the links, by ZeRO stage as deepspeed 0.19.8 does it.

        stage  gradients                                   weights                  what the backward pass hides
        0      all-reduce once a step                      -                        nothing: sent after it
        1      all-reduce once a step                      all-gather, once         gradients, bucket by bucket
        2      all-reduce in every micro-batch             all-gather, once         gradients, bucket by bucket
        3      reduce-scatter in every micro-batch         all-gather, twice in     both, while all arithmetic lasts
                                                           every micro-batch

    In the paper stages 1 and 2 reduce-scatter; deepspeed all-reduces each bucket, which is twice as much
    (use_multi_rank_bucket_allreduce). In stages 1 to 3 a teacher is gathered after each update, too, and nothing hides it.

    Source: Rajbhandari et al. 2020 (arXiv 1910.02054) sec. 7; deepspeed/runtime/zero/stage_1_and_2.py, average_tensor.
    """
    size = cost.parameters(work.shape) * _number_bytes(work)
    stage, times = work.zero_stage, work.grad_accum if work.zero_stage >= 2 else 1
    one_reduce_s = ring_s(size, machine, passes=1 if stage == 3 else 2)
    gathers = {0: 0, 1: 1, 2: 1, 3: 2 * work.grad_accum}[stage]
    reduce_s, gather_s = times * one_reduce_s, gathers * ring_s(size, machine, passes=1)
    of_teacher = int(stage > 0 and work.shape.target == "features")
    teacher_s = of_teacher * ring_s(size, machine, passes=1)
    if stage == 3:
        exposed_s = max(0.0, reduce_s + gather_s - arithmetic_s)
    elif stage == 0:
        exposed_s = reduce_s
    else:
        backward_s = arithmetic_s / work.grad_accum * 2 / 3
        buckets = max(1, math.ceil(cost.parameters(work.shape) / bucket_numbers))
        exposed_s = times * _exposed_s(backward_s, one_reduce_s, buckets) + gather_s
    n = machine.world_size
    sent = (times * (1 if stage == 3 else 2) + gathers + of_teacher) * (n - 1) / n * size
    return Traffic(reduce_s, gather_s + teacher_s, exposed_s + teacher_s, sent / 1e9)


def update_cores(work: Work, machine: Machine) -> int:
    """Cores of a rank that update weights: those that the loader leaves, as the batch script shares them."""
    return max(1, machine.cores_per_gpu - work.workers)


def update_gb_s(work: Work, machine: Machine) -> float:
    """Bytes a second, 1e9, that a rank's cores move when they update: CORE_GB_S each, no more than its share of the node."""
    return min(CORE_GB_S * update_cores(work, machine), HOST_GB_S * REACHED / machine.gpus_per_node)


def offload_time(work: Work, machine: Machine, arithmetic_s: float) -> Offload:
    """An optimizer in the host's memory, of a rank's share of the parameters, as deepspeed 0.19.8 does it.

        gradients   to the host in float32, while the backward pass lasts; in stages 2 and 3 with several forward passes per
                    update, the sum so far goes there after each pass and comes back for the next, which waits for it
        update      on the CPU: ADAM_BYTES, 8 more to clip the gradient in place, a weight read and one written to go back
        weights     back to the GPU, then to the other ranks (`link_traffic`)

    Args:
        work: The step.
        machine: Where it runs.
        arithmetic_s: Of the step; two thirds of it are the backward pass.
    Source: Ren et al. 2021 (arXiv 2101.06840) sec. 4; deepspeed/runtime/zero/stage_1_and_2.py, copy_grads_in_partition.
    """
    share, number = cost.parameters(work.shape) / machine.world_size, _number_bytes(work)
    sums = work.grad_accum if work.zero_stage >= 2 and work.grad_accum > 1 else 0
    down, up = share * (4 + number * sums), share * number * max(1, sums)
    link = machine.gpu.host_gb_s * 1e9 * REACHED
    down_s, up_s = down / link, up / link
    update_s = share * (ADAM_BYTES + 8 + 4 + number) / (update_gb_s(work, machine) * 1e9)
    exposed_s = max(0.0, down_s - arithmetic_s * 2 / 3) + update_s + up_s
    return Offload(down_s, update_s, up_s, exposed_s, (down + up) / 1e9)


def _exposed_s(backward_s: float, reduce_s: float, buckets: int) -> float:
    """How long sending lasts after the backward pass, where bucket i of n can be sent once i / n of the pass is done."""
    sent_s = 0.0
    for i in range(1, buckets + 1):
        sent_s = max(sent_s, backward_s * i / buckets) + reduce_s / buckets
    return sent_s - backward_s


def _number_bytes(work: Work) -> int:
    """Of a weight that computes, and of a gradient on the links: stage 0 keeps float32 weights under autocast."""
    return 2 if work.precision != "fp32" and work.zero_stage else 4


def find_mfu(gpu: Gpu, model: str, micro_batch: int, path: Path = MEASURED_MFU) -> Mfu:
    """The measured MFU of a card and model, that of the nearest micro-batch; else the assumption, named as such."""
    fit = [row for row in measured(path) if find_gpu(str(row["gpu"])) == gpu and row["model"] == model]
    if not fit:
        return Mfu(ASSUMED_MFU, f"assumed: none is measured for {model} on {gpu.name}")
    row = min(fit, key=lambda row: abs(int(row["micro_batch"]) - micro_batch))
    where = f"{gpu.name}, micro_batch {row['micro_batch']}, {row['date']}, {row['versions']}"
    return Mfu(float(row["mfu"]), f"measured on {where}")


@cache
def measured(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The rows of the table of measured MFU.

    Raises:
        ValueError: A row lacks a key, or its MFU or GPU cannot be.
    """
    rows = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("rows") or []
    for row in rows:
        missing = {"gpu", "model", "micro_batch", "mfu", "date", "versions"} - set(row)
        if missing or not 0 < row["mfu"] <= 1 or find_gpu(str(row["gpu"])) is None:
            wrong = f"no {', '.join(sorted(missing))}" if missing else "a wrong value"
            raise ValueError(f"{path}: the row {row} has {wrong}; allowed: gpu of vidmae/runs/gpus.py, mfu above 0 and at "
                             "most 1")
    return tuple(rows)


def clip_cpu_ms(record: Mapping[str, Any] | None, repeats: int, window: str = "own") -> float | None:
    """CPU milliseconds of one clip where so many are cut from each opened video.

    Opening and seeking cost a + b / repeats: the two measured numbers of repeats give a and b.

    Args:
        record: `clip_cost` of a manifest's summary (vidmae/clips/clip_cost.py); None where it was not measured.
        repeats: Clips per opened video: data.repeat_aug, no more than a micro-batch has.
        window: data.repeat_window; `shared` is taken to cost what `near` does, which is a little more.
    """
    if not record:
        return None
    (low, low_ms), (high, high_ms) = sorted((int(n), float(ms)) for n, ms in record["ms_per_clip"].items())
    if window != "own":
        high_ms = record.get("near_ms_per_clip", high_ms)  # earlier manifests do not have it
    if not low < repeats < high:
        return low_ms if repeats <= low else high_ms
    b = (low_ms - high_ms) / (1 / low - 1 / high)
    return low_ms - b / low + b / repeats


def other_clip(record: Mapping[str, Any] | None, config: PretrainConfig) -> str:
    """What is wrong with measured CPU times where they are of another kind of clip than this configuration's; or empty."""
    if not record:
        return ""
    own = {**vars(config.data), **vars(config.model)}
    if all(record[name] == own[name] for name in ("num_frames", "img_size", "sampling_rate", "target_fps")):
        return ""
    return (f"CPU times were measured for clips of {record['num_frames']} frames of {record['img_size']} px, stride "
            f"{record['sampling_rate']} at {record['target_fps']:g} fps; this recipe has others")


def data_line(time: StepTime, name: str) -> str:
    """One sentence on clips: what one costs, what the cores feed, what the GPU wants, how long it would wait.

    Args:
        time: The step.
        name: Of the data set, for the commands that are named.
    """
    work, cores = time.work, time.machine.cores_per_gpu
    if work.clip_cpu_ms is None or time.fed_clips_per_s is None:
        return (f"data: the CPU time of a clip was not measured; python jobs/prepare.py manifest FOLDER --name {name} "
                "measures it (files that were checked are not checked again)")
    who = f"{cores} cores per GPU" if time.readers == cores else \
        f"{time.readers} of {cores} cores per GPU (data.workers {work.workers})"
    says = (f"data: {work.clip_cpu_ms:.3g} ms per clip, {who} feed {_rate(time.fed_clips_per_s)} clips/s, the GPU wants "
            f"{_rate(time.wanted_clips_per_s)}")
    if time.wait < 0.005:
        return f"{says}: it would not wait"
    return f"{says}: it would wait {100 * time.wait:.0f} %; {data_advice(time, name)}"


def data_advice(time: StepTime, name: str) -> str:
    """What makes clips come sooner: more loader processes where idle cores are enough, else prepared footage."""
    cores, data_s = time.machine.cores_per_gpu, time.data_s or 0.0
    if time.readers == cores:
        return f"python jobs/prepare.py footage {name}" if not time.work.prepared else \
            "more --cpus-per-task, a larger --set data.repeat_aug, or --set data.repeat_window=near"
    more = f"--set data.workers={cores}"
    if time.work.prepared:
        return more
    enough = data_s * time.readers / cores <= time.gpu_s
    return more if enough else f"python jobs/prepare.py footage {name}, and {more}"


def offload_line(time: StepTime) -> str:
    """One sentence on an optimizer in the host's memory."""
    o, machine = time.offload, time.machine
    return (f"offload: {1000 * o.exposed_s:,.3g} ms not hidden; gradients {1000 * o.down_s:,.3g} ms to the host and weights "
            f"{1000 * o.up_s:,.3g} ms back at {REACHED * machine.gpu.host_gb_s:.3g} GB/s, update "
            f"{1000 * o.update_s:,.3g} ms at {update_gb_s(time.work, machine):.3g} GB/s on "
            f"{update_cores(time.work, machine)} cores (assumed)")


def advice(time: StepTime, name: str) -> str:
    """What to do about the slowest part."""
    work = time.work
    if time.slowest == "data":
        return data_advice(time, name)
    if time.slowest == "links":
        fewer = "fewer nodes, or a faster link between them"
        repeated = work.zero_stage == 3 or (work.zero_stage == 2 and work.grad_accum > 1)
        first = "--set train.zero_stage=1 where the states fit, " if repeated else ""
        return f"{first}{fewer}; python analysis/roofline.py compares"
    if time.slowest == "offload":
        few = update_cores(work, time.machine) * CORE_GB_S < HOST_GB_S * REACHED / time.machine.gpus_per_node
        more = "more --cpus-per-task" if few else "more GPUs, which share the update"
        return f"--set train.offload=none where the states fit, or {more}"
    if time.slowest == "memory":
        more = "a larger --set train.micro_batch" if work.grad_accum > 1 else "fewer GPUs"
        return f"{more}, so that weights are read for more clips"
    return "it is as it should be: more GPUs make the step shorter"


def _rate(clips_per_s: float) -> str:
    return f"{clips_per_s:,.0f}" if clips_per_s >= 10 else f"{clips_per_s:.2g}"
