"""What each rank takes for its own part of a step, compared every few steps: who holds up the others is named.

On a CPU the clock of the host times a forward pass. On a GPU the host is done with it long before the GPU is, so events are
recorded around it; they are read once the update has waited for the GPU anyway. A comparison is no collective of its own:
the sum over the ranks that every update has takes three numbers of each rank along, each in its own places of the list.

    numbers = pace.to_sum(step)                    # before the update; most often nothing
    *_, averages = engine.update(extra=numbers)
    pace.step_done(step_s)
    pace.compare(averages)                         # rank 0 names who is slow
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from vidmae.ranks.dist import Ranks
from vidmae.ranks.health.stragglers import Judge, OwnTimes, Slow, excess_of, write_slow
from vidmae.runs.nodes.left_out import leave_out_node, node_name
from vidmae.runs.record import RunFolder
from vidmae.settings.keeping_config import RecoveryConfig

MEASURED = 3  # numbers of a rank: its step, its wait for clips, its forward passes
REWRITE_S = 60.0  # slow.json is written anew at least so often while somebody is slow


class ForwardClock:
    """Times the forward passes of a model that trains.

    Args:
        module: The model.
        device: Where it computes.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._begun: Any = None
        self._passes: list[tuple[Any, Any]] = []
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._begun = self._now() if module.training else None

    def _end(self, *_: Any) -> None:
        if self._begun is not None:
            self._passes.append((self._begun, self._now()))

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def take_s(self) -> float:
        """Seconds of the forward passes since the last call; asked after an update, when a GPU has done them."""
        passes, self._passes = self._passes, []
        if self._on_gpu:
            return float(sum(begun.elapsed_time(ended) for begun, ended in passes if ended.query())) / 1000
        return float(sum(ended - begun for begun, ended in passes))


class Pace:
    """Compares the ranks while they train. Collective.

    Args:
        run: The run folder.
        recovery: Says how often, and who is slow.
        ranks: All ranks; a single one is compared with nobody.
        module: The model that trains.
        zero_stage: In stage 3 a forward pass waits for the other ranks and is not looked at.
        say: Takes a line for rank 0's log.
    """

    def __init__(self, run: RunFolder, recovery: RecoveryConfig, ranks: Ranks, module: nn.Module, *, zero_stage: int,
                 say: Callable[[str], None]) -> None:
        self._every = recovery.compare_steps if ranks.world_size > 1 else 0
        self._run, self._ranks, self._say, self._wait_s = run, ranks, say, 0.0
        self._sums, self._steps, self._first = [0.0] * MEASURED, 0, True
        if ranks.is_main:
            run.slow.unlink(missing_ok=True)
        if not self._every:
            return
        self._clock = ForwardClock(module, ranks.device) if zero_stage < 3 else None
        self._nodes: list[str] = ranks.gather(node_name())
        self._judge, self._written_s = Judge(self._nodes, recovery), 0.0

    def waited(self, seconds: float) -> None:
        """Take what this rank has waited for the clips of a step."""
        self._wait_s = seconds

    def step_done(self, step_s: float) -> None:
        """Take a step, after its update.

        Args:
            step_s: What it took, seconds.
        """
        if not self._every:
            return
        mine = step_s, self._wait_s, self._clock.take_s() if self._clock else 0.0
        if self._first:  # it compiles, and finds its memory
            self._first = False
            return
        self._sums = [total + new for total, new in zip(self._sums, mine, strict=True)]
        self._steps += 1

    def to_sum(self, step: int) -> list[float]:
        """Numbers for the sum over the ranks of the next update: what this rank took in the steps since the last comparison.

        Args:
            step: Of the update, the first is 1.
        Returns:
            Three numbers for each rank, 0 in the places of the others, and in its own where it has not measured a step yet;
            nothing where it is not time to compare. How many there are follows from the step alone: a sum of another length
            may be rounded otherwise.
        """
        if not self._every or step % self._every:
            return []
        numbers, first = [0.0] * (MEASURED * self._ranks.world_size), MEASURED * self._ranks.rank
        numbers[first:first + MEASURED] = [total / max(1, self._steps) for total in self._sums]
        self._sums, self._steps = [0.0] * MEASURED, 0
        return numbers

    def compare(self, averages: Sequence[float]) -> dict[str, Any]:
        """Look at what the update made of the numbers of all ranks.

        Args:
            averages: Of `to_sum` over the ranks.
        Returns:
            On rank 0 what metrics.jsonl says of the comparison; else nothing.
        """
        if not any(averages) or not self._ranks.is_main:
            return {}
        values = [average * self._ranks.world_size for average in averages]
        excess = excess_of([OwnTimes(*values[i:i + MEASURED]) for i in range(0, len(values), MEASURED)])
        before, now_s = {(slow.node, slow.cause): slow for slow in self._judge.named}, time.monotonic()
        leaving = self._judge.add(excess, now_s)
        self._tell(before, {(slow.node, slow.cause): slow for slow in self._judge.named})
        for slow in leaving:
            leave_out_node(self._run, slow.node, f"it made steps {slow.pct:.0f} % longer for "
                           f"{self._judge.limits.leave_out_s:.0f} s or more: {slow.cause}")
            self._say(f"stragglers: node {slow.node} is left out when the job next stops")
        named = self._judge.named
        if before.keys() != {(slow.node, slow.cause) for slow in named} or (named and now_s - self._written_s > REWRITE_S):
            self._written_s = now_s
            write_slow(self._run, named, excess.straggle)
        return {"slowest_rank": excess.slowest_rank, "straggle": excess.straggle}

    def _tell(self, before: dict[tuple[str, str], Slow], now: dict[tuple[str, str], Slow]) -> None:
        """Lines about who is named for the first time, and who no longer."""
        for key in now.keys() - before.keys():
            self._say(f"stragglers: {now[key]}")
        for node, cause in before.keys() - now.keys():
            if node not in {name for name, _ in now}:
                self._say(f"stragglers: {f'node {node}' if node else cause} no longer holds up the others")
