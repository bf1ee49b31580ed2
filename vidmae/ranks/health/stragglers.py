"""Who holds up the others: judged from a few numbers of each rank, and kept in slow.json of the run folder. Stdlib only.

In a step all ranks take the same time, since each waits for the slowest. What differs is a rank's own part of it: waiting
for clips, and computing. The forward pass stands for the computing: up to ZeRO 2 it waits for nobody, and the backward pass
takes twice as long. A rank counts by how much longer the steps are because of it, against those of the median rank.

    a step of four ranks        | clips | forward | backward | waits for rank 2 | exchange |
    of which rank 2 is slow     | clips | forward      | backward               | exchange |

One slow comparison accuses nobody: what counts is the median of the last WINDOW comparisons.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from vidmae.runs.record import SCHEMA, RunFolder, job_id, read_json, write_json
from vidmae.settings.keeping_config import RecoveryConfig

PER_FORWARD = 3.0  # forward and backward, in forward passes
WINDOW, ENOUGH = 5, 3  # comparisons that are looked at, and how many there must be
GOES_AT = 0.5  # a rank that was named is named until it is below this share of recovery.slow_pct
MOST_OF_STEP = 0.95  # of a step, at most, is one rank's doing: backward passes are estimated
LEAVABLE_SHARE = 0.1  # of the nodes; more than these are no exception but another kind of node
WAITS, COMPUTES, EXCHANGES = "waiting for clips", "slow computing", "slow exchange between ranks"


class OwnTimes(NamedTuple):
    """What one rank measured, seconds per step, mean of the steps since the last comparison.

    Attributes:
        step_s: The whole step.
        waited_s: Waiting for clips.
        forward_s: The forward passes; 0 where that is not known.
    """

    step_s: float
    waited_s: float
    forward_s: float


@dataclass(frozen=True)
class Excess:
    """What ranks take longer than the median, of one comparison.

    Attributes:
        waiting_s, computing_s: Of each rank, seconds of a step; negative where it is quicker.
        by_rank_s: Seconds that each rank alone would add to the steps of all, from 0 on.
        by_rank_pct: The same in percent of a step without the slowest rank.
        step_s: The step.
        rest_s: What of the step is no rank's own part: the exchange and the update.
        own_s: The median rank's own part.
    """

    waiting_s: tuple[float, ...]
    computing_s: tuple[float, ...]
    by_rank_s: tuple[float, ...]
    by_rank_pct: tuple[float, ...]
    step_s: float
    rest_s: float
    own_s: float

    @property
    def slowest_rank(self) -> int:
        """The rank with the longest own part."""
        return self.by_rank_s.index(max(self.by_rank_s))

    @property
    def straggle(self) -> float:
        """Share of the step that is lost because of the slowest rank, 0 to 1."""
        return max(self.by_rank_s) / self.step_s


def excess_of(times: Sequence[OwnTimes]) -> Excess:
    """Compare the ranks. The lower median is the norm: of two ranks the quicker one."""
    steps_s, waited_s, forwards_s = zip(*times, strict=True)
    step_s = max(1e-9, _median(steps_s))
    norms_s = _median(waited_s), _median(forwards_s)
    waiting_s = tuple(each - norms_s[0] for each in waited_s)
    computing_s = tuple(PER_FORWARD * (each - norms_s[1]) for each in forwards_s)
    own_s = [waited + PER_FORWARD * forward for waited, forward in zip(waited_s, forwards_s, strict=True)]
    most_s = MOST_OF_STEP * step_s
    by_rank_s = tuple(min(max(0.0, sum(both)), most_s) for both in zip(waiting_s, computing_s, strict=True))
    to_pct = 100 / (step_s - max(by_rank_s))
    return Excess(waiting_s, computing_s, by_rank_s, tuple(to_pct * each for each in by_rank_s), step_s,
                  max(0.0, step_s - max(own_s)), _median(own_s))


def _median(values: Sequence[float]) -> float:
    """The lower one of an even number."""
    return sorted(values)[(len(values) - 1) // 2]


@dataclass(frozen=True)
class Slow:
    """A node that holds up the others, or with an empty name the exchange between all.

    Attributes:
        node: As Slurm calls it.
        ranks: Its slow ranks.
        pct: How much longer steps are because of it, percent; of its slowest rank.
        cause: WAITS, COMPUTES or EXCHANGES.
    """

    node: str
    ranks: tuple[int, ...]
    pct: float
    cause: str

    def __str__(self) -> str:
        if not self.node:
            return f"steps take {self.pct:.0f} % longer than they did, and no rank is slow by itself: {self.cause}"
        ranks = ("rank " if len(self.ranks) == 1 else "ranks ") + ", ".join(map(str, self.ranks))
        return f"node {self.node} ({ranks}) makes steps {self.pct:.0f} % longer: {self.cause}"


@dataclass
class Judge:
    """Looks at one comparison after the other. Rank 0 alone.

    Attributes:
        nodes: Node of each rank.
        limits: recovery.slow_pct, leave_out_pct and leave_out_s.
        named: Who holds up the others now.
        left_out: Nodes that were slow for so long that they are to be left out.
    """

    nodes: Sequence[str]
    limits: RecoveryConfig
    named: list[Slow] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    _window: deque[Excess] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _since_s: dict[str, float] = field(default_factory=dict)
    _least_rest_s: float = float("inf")
    _least_own_s: float = float("inf")

    def add(self, excess: Excess, now_s: float) -> list[Slow]:
        """Take in a comparison; the nodes that are to be left out from now on.

        Args:
            excess: The comparison.
            now_s: The time, seconds since any moment.
        """
        self._window.append(excess)
        if len(self._window) < ENOUGH:
            return []
        ranks_pct = [_median(of_rank) for of_rank in zip(*(e.by_rank_pct for e in self._window), strict=True)]
        named_before = {slow.node for slow in self.named}
        least_pct = {node: self.limits.slow_pct * (GOES_AT if node in named_before else 1) for node in {*self.nodes, ""}}
        self.named = self._slow_nodes(ranks_pct, least_pct) or self._slow_exchange(least_pct[""])
        return self._to_leave(ranks_pct, now_s)

    def _slow_nodes(self, ranks_pct: Sequence[float], least_pct: Mapping[str, float]) -> list[Slow]:
        slow: dict[str, list[int]] = {}
        for rank, (node, pct) in enumerate(zip(self.nodes, ranks_pct, strict=True)):
            if pct >= least_pct[node]:
                slow.setdefault(node, []).append(rank)
        found = [self._slow(node, ranks, ranks_pct) for node, ranks in slow.items()]
        return sorted(found, key=lambda each: -each.pct)

    def _slow(self, node: str, ranks: Sequence[int], ranks_pct: Sequence[float]) -> Slow:
        worst = max(ranks, key=lambda rank: ranks_pct[rank])
        waiting_s, computing_s = (sum(parts[worst] for parts in each) for each in (
            [e.waiting_s for e in self._window], [e.computing_s for e in self._window]))
        return Slow(node, tuple(ranks), ranks_pct[worst], WAITS if waiting_s > computing_s else COMPUTES)

    def _slow_exchange(self, least_pct: float) -> list[Slow]:
        """Where no rank is slow: whether what is no rank's own part of a step takes longer than it did, while the own parts
        take as long as they did."""
        rest_s, step_s, own_s = (_median(values) for values in (
            [e.rest_s for e in self._window], [e.step_s for e in self._window], [e.own_s for e in self._window]))
        self._least_rest_s, self._least_own_s = min(self._least_rest_s, rest_s), min(self._least_own_s, own_s)
        more_s = min(rest_s - self._least_rest_s, MOST_OF_STEP * step_s)
        pct = 100 * more_s / (step_s - more_s)
        all_slower = own_s - self._least_own_s > self._least_own_s * GOES_AT * self.limits.slow_pct / 100
        return [Slow("", (), pct, EXCHANGES)] if pct >= least_pct and not all_slower else []

    def _to_leave(self, ranks_pct: Sequence[float], now_s: float) -> list[Slow]:
        """Nodes that have been slower than recovery.leave_out_pct for recovery.leave_out_s, each once."""
        nodes_pct: dict[str, float] = {}
        for node, pct in zip(self.nodes, ranks_pct, strict=True):
            nodes_pct[node] = max(pct, nodes_pct.get(node, 0.0))
        if not self.limits.leave_out_pct or len(nodes_pct) < 2:
            return []
        slow = {node for node, pct in nodes_pct.items() if pct >= self.limits.leave_out_pct}
        self._since_s = {node: self._since_s.get(node, now_s) for node in slow}
        ripe = [node for node, since_s in self._since_s.items() if now_s - since_s >= self.limits.leave_out_s]
        may = max(1, int(LEAVABLE_SHARE * len(nodes_pct)))
        found = []
        for node in sorted(ripe, key=lambda name: -nodes_pct[name]):
            if node not in self.left_out and len(self.left_out) < may:
                self.left_out.add(node)
                found.append(self._slow(node, [r for r, name in enumerate(self.nodes) if name == node], ranks_pct))
        return found


def write_slow(run: RunFolder, named: Sequence[Slow], straggle: float) -> None:
    """Put down who holds up the others now; may be nobody."""
    write_json(run.slow, {"schema": SCHEMA, "job_id": job_id(), "time": time.time(), "straggle": straggle,
                          "slow": [asdict(each) for each in named]}, durable=False)


def read_slow(run: RunFolder, job: str) -> list[Slow]:
    """Who holds up the others in this job, as it was last put down; nobody where there is no such word."""
    try:
        found: Mapping[str, Any] = read_json(run.slow) or {}
        if str(found.get("job_id")) != job:
            return []
        return [Slow(str(each["node"]), tuple(each["ranks"]), float(each["pct"]), str(each["cause"]))
                for each in found["slow"]]
    except (ValueError, KeyError, TypeError):  # just being damaged
        return []
