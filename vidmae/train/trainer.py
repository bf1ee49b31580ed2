"""The loop that every training run goes through, from its newest checkpoint to its end, whatever it learns.

What it learns is said by a subclass of `Trainer`: the model with its loss, the clips, what a clip becomes before it meets
the model, and, where it wants, a look at the model between two steps. The state of a run is its step: everything random
follows from (seed, step), so a run that continues from a checkpoint draws what it would have drawn without the stop.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from vidmae.clips.loader import Batch
from vidmae.clips.recheck import Recheck
from vidmae.footage.manifest import Manifest
from vidmae.model import compiled
from vidmae.ranks import kernels, preempt, watchdog
from vidmae.ranks.dist import Ranks
from vidmae.ranks.engine import Engine, NonFiniteError
from vidmae.ranks.health.node_checks import check_nodes
from vidmae.ranks.health.pace import Pace
from vidmae.ranks.program import say
from vidmae.ranks.saving import checkpoint
from vidmae.ranks.saving.memory_saver import MemorySaver
from vidmae.runs.attempts import AttemptLog
from vidmae.runs.metrics import MetricsWriter, peak_memory_gib, read_metrics
from vidmae.runs.nodes.gpu_counter import EnergyMeter
from vidmae.runs.nonfinite import leave_out, skipped_windows, window_of
from vidmae.runs.plan import Plan, make_plan
from vidmae.runs.quarantine import Quarantine, Substitution, read_quarantine
from vidmae.runs.record import RunFolder, touch_heartbeat
from vidmae.settings.config import RunConfig
from vidmae.settings.sizes import CHANNELS, EncoderShape
from vidmae.train.boards import open_boards
from vidmae.train.build import peak_flops, stage
from vidmae.train.choices import compiles, keep_choice, read_choices
from vidmae.train.fitting import Trial, is_full, largest_that_fits, states_too_large, too_large
from vidmae.train.prefetch import Prefetcher
from vidmae.train.profiling import StepProfiler

SHOWN_NORMS = 20  # gradient norms before a step that was not finite, in nonfinite.jsonl
C = TypeVar("C", bound=RunConfig)
T = TypeVar("T", bound="Trainer[Any]")


def train_to_end(run: RunFolder, config: RunConfig, ranks: Ranks, started: float,
                 make: Callable[[AttemptLog | None], T]) -> tuple[T, bool, AttemptLog | None]:
    """Train from the newest checkpoint on; go back to it where a step was not finite. Collective.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
        started: When the program started, seconds since 1970.
        make: Builds the trainer, anew after each roll-back.
    Returns:
        The trainer; True once the last step is done and exported, False where a signal asked to stop and the state is
        saved; the account of this attempt, on rank 0 alone.
    Raises:
        LeaveError: The nodes are not fit, and the job shall be requeued without some of them.
        FullMemoryError: The memory of a GPU does not suffice; the message says what would do.
        NonFiniteError: More steps were not finite than recovery.max_skips allows.
    """
    check_nodes(run, config, ranks)
    log, meter = None, EnergyMeter(gpu_uuid(ranks.device), ranks.world_size, partial(say, ranks))
    if ranks.is_main:
        touch_heartbeat(run, state="starting")
        log = AttemptLog(run, started=started, reached=max((m["step"] for m in read_metrics(run)), default=0),
                         ranks=ranks.world_size, gpu=device_name(ranks.device) if ranks.device.type == "cuda" else "")
    while True:
        try:
            trainer = make(log)
            trainer.meter = meter
        except RuntimeError as error:
            if is_full(error):
                raise states_too_large(config.train, error) from error
            raise
        try:
            return trainer, trainer.run_to_end(), log
        except BadWindowError as error:
            if len(trainer.skipped) >= config.recovery.max_skips:
                raise NonFiniteError(f"{error}; {len(trainer.skipped)} windows of data were left out before, which is all "
                                     "that recovery.max_skips allows") from error
            if ranks.is_main:
                note_bad_window(run, error)
            say(ranks, f"{error}; going back to the newest checkpoint and leaving its clips out")
        del trainer
        free_memory(ranks.device)


def free_memory(device: torch.device) -> None:
    """Collect what an engine that nobody holds any more has left: it holds itself in circles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Trainer(ABC, Generic[C]):
    """A run from its newest checkpoint on: what a roll-back makes anew. All methods are collective.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
        manifest: The videos.
        log: Account of this attempt; on rank 0 alone.
    Attributes:
        plan: Derived numbers.
        skipped: Windows of data that are left out.
        step: Updates done.
        copies: In the memory of the nodes, where checkpoint.memory_steps asks for them.
        meter: Of the energy that the GPUs of this attempt use.
    """

    copies: MemorySaver | None = None
    meter: EnergyMeter | None = None

    def __init__(self, run: RunFolder, config: C, ranks: Ranks, manifest: Manifest, log: AttemptLog | None) -> None:
        watchdog.expect_within(config.recovery.start_limit_s)
        self.run, self.config, self.ranks, self.manifest, self.log = run, config, ranks, manifest, log
        if said := kernels.set_numerics(ranks.device, deterministic=config.train.deterministic):
            self.say("numerics: " + ", ".join(said))
        self.compiled = compiles(run, config.train, ranks, self.say)
        if config.train.micro_batch == "auto":
            self.config = config = self._with_micro_batch(config)
        self.plan = plan = self.make_plan()
        self.total_steps = plan.schedule.total_steps
        self.skipped: tuple[int, ...] = ranks.on_main(lambda: skipped_windows(run))
        self._choose_attention()
        model, groups = self.build()
        if self.compiled:
            compiled.use_own_cache(ranks.local_rank)
            graphs = config.train.compile == "graphs"
            number = compiled.compile_blocks(model, graphs=graphs)
            self.say(f"the first step compiles the model's {number} blocks" + (", as CUDA graphs" if graphs else "")
                     if number else "a convolutional net is not compiled: only blocks of a transformer are")
        self.engine = Engine(model, groups, config.train, ranks, micro_batch=plan.micro_batch, grad_accum=plan.grad_accum,
                             averages=self.averages)
        self.pace = Pace(run, config.recovery, ranks, self.engine.module, zero_stage=config.train.zero_stage, say=self.say)
        if config.checkpoint.memory_steps:
            self.copies = MemorySaver(run, config.train, ranks, every_steps=config.checkpoint.memory_steps, say=self.say)
        self.step = self.start = checkpoint.restore(self.engine, run, config.train, ranks, self.say,
                                                    self.copies.restore if self.copies else None)
        self.saver = checkpoint.Saver(self.engine, run, config.train, ranks, keep=config.checkpoint, say=self.say)
        self.saver.prepare(self.start, self.total_steps)
        if self.copies:
            self.copies.prepare(self.engine, self.start)
        peak = peak_flops(config, ranks)
        self.peak_clips_per_s = peak * ranks.world_size / self.flops_per_clip() if peak else None
        self.say(f"training on {ranks.world_size} x {device_name(ranks.device)}, {config.train.precision}, ZeRO "
                 f"{config.train.zero_stage}, {plan.micro_batch} clips x {plan.grad_accum} per rank and step"
                 + (f", peak {peak / 1e9:.0f} GFLOP/s per rank" if peak else ""))
        self.writer = None
        if log is not None:
            log.begin(self.start)
            self.writer = MetricsWriter(run, log, start_step=self.start, total_steps=self.total_steps,
                                        log_every_s=config.log.every_s,
                                        boards=open_boards(run, config, self.start, self.say))
        self.quarantine = Quarantine(run, ranks.on_main(lambda: read_quarantine(run)), start_step=self.start,
                                     max_bad_pct=config.data.max_bad_pct,
                                     videos_per_step=config.train.global_batch / config.data.repeat_aug,
                                     is_main=ranks.is_main, say=self.say)
        stage(config.data, manifest, ranks, self.say)
        self.ahead = Prefetcher(iter(self.clips(start=self.start, unreadable=self.quarantine.unreadable)), ranks.device)
        self.profiler = StepProfiler(run, config.log.profile_steps if ranks.is_main else 0, ranks.device)

    @abstractmethod
    def build(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        """The model, which returns a scalar loss, and its parameter groups."""

    def make_plan(self) -> Plan:
        """The derived numbers of the run."""
        return make_plan(self.config, videos=len(self.manifest), world_size=self.ranks.world_size)

    @property
    def averages(self) -> bool:
        """Whether the engine keeps a running average of the weights."""
        return False

    def updated(self, step: int) -> None:
        """Told that update `step`, from 0 on, has changed the weights; not of one that fp16's loss scaler skips."""

    def watched(self) -> list[torch.Tensor]:
        """Numbers on the device that are averaged over the ranks with the loss of a step; asked once, before its update."""
        return []

    def more_metrics(self, step: int, watched: Sequence[float]) -> dict[str, Any]:  # noqa: ARG002
        """What the metrics say besides after `step` updates; `watched` are the averages of `watched()`."""
        return {}

    @abstractmethod
    def clips(self, *, start: int, unreadable: Mapping[int, str]) -> Iterable[Batch]:
        """This rank's micro-batches from step `start` to the last, without the windows left out."""

    @abstractmethod
    def inputs(self, batch: Batch, position: int) -> tuple[Any, ...]:
        """What the model takes of a micro-batch, on the device; `position` counts this rank's micro-batches of the run."""

    @abstractmethod
    def flops_per_clip(self) -> float:
        """Matrix-product FLOPs of forward and backward for one clip, without recomputation."""

    @abstractmethod
    def attention_shapes(self) -> Sequence[kernels.AttentionShape]:
        """Heads, tokens and head width of the model's blocks, each kind once; empty where it has no attention."""

    @abstractmethod
    def export(self) -> None:
        """Write the weights of the last step where the run needs them."""

    def look(self) -> bool:
        """Look at the model after `step` updates, if it is time to; True ends training early."""
        return False

    def say(self, text: str) -> None:
        """A line in rank 0's log."""
        say(self.ranks, text)

    def _with_micro_batch(self, config: C) -> C:
        """The configuration with what fits on this GPU in place of train.micro_batch auto.

        Raises:
            ValueError: There is no GPU, or not even one clip fits.
        """
        device, ranks = self.ranks.device, self.ranks
        if device.type != "cuda":
            raise ValueError("train.micro_batch is auto, which measures the memory of a GPU, and this run is on a CPU; "
                             "allowed here: a number of clips (--set train.micro_batch=16)")
        name, known = device_name(device), ranks.on_main(lambda: read_choices(self.run)).get("micro_batch", {})
        if name not in known:
            share = self.make_plan().micro_batch
            trial = Trial(self.build()[0], lambda clips: self.inputs(blank_batch(config, clips), 0), config.train,
                          ranks.world_size, device, averages=self.averages)
            found = min(ranks.gather(largest_that_fits(share, trial.fits)))
            del trial
            free_memory(device)
            known = {**known, name: found}
            keep_choice(self.run, ranks, micro_batch=known)
        self.say(f"train.micro_batch auto: {known[name]} clips on {name}")
        return replace(config, train=replace(config.train, micro_batch=known[name]))

    def _choose_attention(self) -> None:
        """The fused attention kernel of this run on a GPU: measured where it begins, then kept. Collective."""
        device, train = self.ranks.device, self.config.train
        if device.type != "cuda" or self.config.model.attention == "naive" or not self.attention_shapes():
            return
        key = "attention_deterministic" if train.deterministic else "attention"
        kernel, said = self.ranks.on_main(lambda: read_choices(self.run)).get(key), "what the run began with"
        if kernel is None and self.ranks.is_main:
            dtype = kernels.HALF.get(train.precision, torch.float32)
            kernel, said = kernels.fastest_attention(self.attention_shapes(), self.plan.micro_batch, dtype, device,
                                                     deterministic=train.deterministic)
        kernel = self.ranks.from_main(kernel)
        kernels.use_attention(kernel)
        keep_choice(self.run, self.ranks, **{key: kernel})
        self.say(f"attention: {kernel} ({said})")

    def run_to_end(self) -> bool:
        """Train to the last step and export; False where a signal stopped it before, with everything saved.

        Raises:
            BadWindowError: A step was not finite; no weight has changed, and no save is under way.
            FullMemoryError: A step does not fit in the memory of a GPU.
            ValueError: A setting needs what train.deterministic does not allow.
        """
        limits, lost_s = self.config.recovery, 0.0
        try:
            enough = self.step == self.total_steps or bool(self.step and self.look())
            while not enough:
                self.profiler.before_step()
                with self._first_step() if self.step == self.start else nullcontext():
                    record, stop, busy = self.train_step(self.step)
                self.step += 1
                if said := self.profiler.after_step():
                    self.say(said)
                watchdog.expect_within(limits.step_limit_s)  # `save` and a look set the longer one where they take long
                if self.writer is not None:
                    self.writer.write({**record, "save_s": lost_s})
                enough = (not stop and self.look()) or self.step == self.total_steps
                lost_s = self.save(now=stop or enough, busy=busy)
                if stop and not enough:
                    self.say(f"stopping after step {self.step}: {preempt.received() or 'another rank'} asked for it")
                    return False
                watchdog.expect_within(limits.step_limit_s)
        except BadWindowError:
            watchdog.expect_within(limits.start_limit_s)  # a save in the background may take longer than a step
            self.saver.finish()
            if self.copies:
                self.copies.finish()
                self.copies.close()
            raise
        except RuntimeError as error:
            if is_full(error):
                raise too_large(self.plan.micro_batch, error) from error
            if self.config.train.deterministic and kernels.NOT_DETERMINISTIC in str(error):
                raise ValueError(f"train.deterministic is true, but a setting of this run needs an operation that has no "
                                 f"deterministic kernel: {error} (--set train.deterministic=false)") from error
            raise
        finally:
            if said := self.profiler.finish():
                self.say(said)
            if self.writer is not None:
                self.writer.close()
        watchdog.expect_within(limits.start_limit_s)
        self.export()
        return True

    def _first_step(self) -> AbstractContextManager[None]:
        """Around the first step: a stop waits until it is compiled, and signals do not reach the compilers."""
        return preempt.held(self.config.recovery.signals) if self.compiled else nullcontext()

    def save(self, *, now: bool, busy: float) -> float:
        """Save what is due after `step` updates, `now` whatever is due; seconds that training lost."""
        lost_s = self.saver.settle(busy)
        due = self.step % self.config.checkpoint.every_steps == 0
        if now or due:
            watchdog.expect_within(self.config.recovery.start_limit_s)
            lost_s += self.saver.save(self.step) if now else self.saver.begin(self.step)
            if self.meter is not None:
                self.meter.note(self.ranks.sum, self.log)
        if self.copies:
            lost_s += self.copies.finish() if now else self.copies.begin(self.step)
            if now:
                self.copies.remove()
        if self.log is not None:
            self.log.saved(lost_s, self.saver.slowest_s)
        return lost_s

    def train_step(self, step: int) -> tuple[dict[str, Any], bool, float]:
        """One optimizer step.

        Returns:
            Its line of metrics.jsonl, whether a signal asked any rank to stop, and the share of ranks that still write a
            checkpoint.
        Raises:
            BadWindowError: Loss or gradient is not finite, on every rank alike; no weight has changed.
        """
        engine, plan, config, device = self.engine, self.plan, self.config, self.ranks.device
        phase = plan.schedule.phase_at(step)
        if step and step == plan.schedule.start_of(phase) and plan.schedule.phases[phase].reset_optimizer:
            engine.reset_optimizer()
        lr = plan.schedule.lr_at(step)
        engine.set_lr(lr)
        began, waited_s, rows, archive_bytes = time.perf_counter(), 0.0, [], [0, 0]
        replaced: list[Substitution] = []
        rechecked: list[Recheck] = []
        for j in range(plan.grad_accum):
            batch, batch_waited_s = self.ahead.next()
            waited_s += batch_waited_s
            rows += batch.rows.tolist()
            replaced += batch.substituted
            rechecked += batch.rechecked
            archive_bytes = [sum(pair) for pair in zip(archive_bytes, batch.archive_bytes, strict=True)]
            engine.backward(*self.inputs(batch, step * plan.grad_accum + j))
            self.ahead.fetch()
        self.pace.waited(waited_s)
        paces = self.pace.to_sum(step + 1)
        losses, stop, clips_replaced = engine.losses, float(preempt.received() is not None), sum(s.clips for s in replaced)
        try:
            skipped = engine.skipped_steps
            loss, grad_norm, (waited_s, stops, busy, substituted, looked, *more) = engine.update(
                extra=[waited_s, stop, self.saver.busy, clips_replaced, len(rechecked), *paces], watched=self.watched())
        except NonFiniteError as error:
            mine = {"rank": self.ranks.rank, "rows": rows, "losses": [str(x) for x in losses.tolist()]}
            raise BadWindowError(str(error), step, window_of(step, self.skipped), self.ranks.joined([mine])) from error
        if engine.skipped_steps == skipped:
            self.updated(step)
        if substituted:
            self.quarantine.add(step + 1, self.ranks.joined(replaced))
        found = self.ranks.joined(rechecked) if looked else []
        for each in found:
            if each.problem:
                self.say(f"step {step + 1}: row {each.row + 1} of the manifest was read a second time: {each.problem}")
        step_s = time.perf_counter() - began
        self.pace.step_done(step_s)
        clips_per_s = config.train.global_batch / step_s
        return {
            "step": step + 1, "epoch": (step + 1) / plan.steps_per_epoch, "phase": phase, "loss": loss, "lr": lr,
            "grad_norm": grad_norm, "step_s": step_s, "data_wait": min(1.0, waited_s / step_s),
            "clips_per_s": clips_per_s, "mfu": clips_per_s / self.peak_clips_per_s if self.peak_clips_per_s else None,
            "peak_gib": peak_memory_gib(device), "skipped": engine.skipped_steps,
            "substituted": round(substituted * self.ranks.world_size), "rechecked": len(found),
            "differing": sorted(each.row + 1 for each in found if each.problem), **self._staged(archive_bytes),
            **self.more_metrics(step + 1, more[len(paces):]), **self.pace.compare(more[:len(paces)]),
        }, stops > 0, busy

    def _staged(self, archive_bytes: list[int]) -> dict[str, float]:
        """Where archives are copied to a disk of the node: the share of their bytes that came from there. Collective."""
        if not self.config.data.stage:
            return {}
        staged, others = self.ranks.sum([float(size) for size in archive_bytes])
        return {"staged": staged / max(1.0, staged + others)}


class BadWindowError(NonFiniteError):
    """A step's loss or gradient is not finite.

    Attributes:
        step: Updates done before it.
        window: Its window of data.
        details: What each rank had: manifest rows, and the loss of each micro-batch as text.
    """

    def __init__(self, why: str, step: int, window: int, details: list[dict[str, Any]]) -> None:
        super().__init__(f"step {step + 1}, data window {window}: {why}")
        self.why, self.step, self.window, self.details = why, step, window, details


def note_bad_window(run: RunFolder, error: BadWindowError) -> None:
    """Write down what a step that was not finite was made of, and leave its window out from now on."""
    before = [{key: m[key] for key in ("step", "loss", "grad_norm")} for m in read_metrics(run)[-SHOWN_NORMS:]]
    leave_out(run, error.window, error.why, {"step": error.step + 1, "ranks": error.details, "before": before})


def blank_batch(config: RunConfig, clips: int) -> Batch:
    """A micro-batch of so many black clips, for a trial."""
    m = config.model
    shape: EncoderShape = m.shape()  # type: ignore[attr-defined]  # every network that trains has one
    return Batch(torch.zeros(clips, m.num_frames, m.img_size, m.img_size, CHANNELS, dtype=torch.uint8),
                 torch.rand(clips, shape.num_tokens), torch.zeros(clips, dtype=torch.int64),
                 torch.zeros(clips, dtype=torch.int64))


def device_name(device: torch.device) -> str:
    """What people call the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def gpu_uuid(device: torch.device) -> str:
    """What names a GPU all over the machine; empty for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
