"""What each rank takes for its own part of a step, compared every few steps: who holds up the others is named.

On a CPU the clock of the host times a forward pass. On a GPU the host is done with it long before the GPU is, so events are
recorded around it; they are read once the update has waited for the GPU anyway. The comparison itself is one gather of three
numbers of each rank. Rank 0 looks at them a step later, when they have come without anybody waiting for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vidmae.ranks.dist import Ranks
from vidmae.ranks.health.stragglers import Judge, OwnTimes, Slow, excess_of, write_slow
from vidmae.runs.nodes.left_out import leave_out_node, node_name
from vidmae.runs.record import RunFolder
from vidmae.settings.keeping_config import RecoveryConfig

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
        self._sums, self._steps, self._first = [0.0, 0.0, 0.0], 0, True
        self._coming: Tensor | None = None
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

    def step_done(self, step: int, step_s: float) -> dict[str, Any]:
        """Take a step, after its update, and compare the ranks where it is time to.

        Args:
            step: Updates done.
            step_s: What it took, seconds.
        Returns:
            On rank 0 what metrics.jsonl says of the last comparison, one step after it; else nothing.
        """
        if not self._every:
            return {}
        mine = step_s, self._wait_s, self._clock.take_s() if self._clock else 0.0
        if self._first:  # it compiles, and finds its memory
            self._first = False
            return {}
        said = self._look()
        self._sums = [total + new for total, new in zip(self._sums, mine, strict=True)]
        self._steps += 1
        if step % self._every == 0:
            self._coming = self._gathered()
            self._sums, self._steps = [0.0, 0.0, 0.0], 0
        return said

    def _gathered(self) -> Tensor | None:
        """The means of all ranks, [ranks, 3]; on a GPU they are on their way to rank 0's host memory."""
        device = self._ranks.device
        means = torch.tensor([total / self._steps for total in self._sums], dtype=torch.float64)
        found = self._ranks.gather_tensor(means.to(device, non_blocking=True))
        if not self._ranks.is_main:
            return None
        if device.type != "cuda":
            return found
        host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        return host.copy_(found, non_blocking=True)  # done before the next update's numbers are, which are waited for

    def _look(self) -> dict[str, Any]:
        if self._coming is None:
            return {}
        excess = excess_of([OwnTimes(*of_rank) for of_rank in self._coming.tolist()])
        self._coming = None
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
