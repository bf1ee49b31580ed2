"""Which ranks keep copies of each other's shards in memory, and how copies go between them.

    node a    rank 0 --\\   rank 1 --\\          a rank sends its copy to the rank of the same place on the next node, the
    node b    rank 2 <-/   rank 3 <-/          last node to the first; with one node its own copy is all there is
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as torch_dist

from vidmae.ranks.dist import COLLECTIVE_TIMEOUT, Ranks
from vidmae.ranks.saving.memory_copies import Generation, NodeCopies, rank_name
from vidmae.ranks.saving.transfer import Receiving, run_together, sending
from vidmae.runs.nodes.left_out import node_name


def partners(nodes: Sequence[str]) -> list[int]:
    """For each rank the one that keeps its second copy; itself where there is one node.

    Args:
        nodes: Node of each rank.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for rank, node in enumerate(nodes):
        places[node].append(rank)
    after = dict(zip(places, [*list(places)[1:], *list(places)[:1]], strict=True))
    return [places[after[node]][places[node].index(rank) % len(places[after[node]])] for rank, node in enumerate(nodes)]


class Partners:
    """The ranks of a run with a process group of their own, so that a thread can use it while training uses the other.

    Args:
        ranks: From `dist.init`. Making this is collective.
    Attributes:
        nodes: Node of each rank.
        of: For each rank the one that keeps its second copy.
        leads: Whether this rank looks after the folder of its node.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        _allow_connections(ranks.world_size)
        self._group = torch_dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if ranks.world_size > 1 else None
        self.nodes: list[str] = ranks.gather(node_name())
        self.of = partners(self.nodes)
        self.leads = self.nodes.index(node_name()) == ranks.rank

    def close(self) -> None:
        """Give up the group: a process keeps its connections until then. After the last exchange, on every rank."""
        if self._group is not None:
            torch_dist.destroy_process_group(self._group)
            self._group = None

    def sender(self, node: str, rank: int) -> int:
        """The rank that sends what a node holds of another rank."""
        there = [r for r, name in enumerate(self.nodes) if name == node]
        return there[rank % len(there)]

    def exchange(self, node: NodeCopies, generation: Generation, pairs: Mapping[str, tuple[int, int]]) -> list[Receiving]:
        """Send copies of a generation and receive others. Collective among the ranks that are named.

        Args:
            node: What this node holds: what is sent, and what comes.
            generation: Of the copies.
            pairs: Name of a copy -> the rank that sends it, and the rank that receives it.
        Returns:
            What came to this rank.
        """
        mine = self._ranks.rank
        going = [sending(self._group, to, node.path(generation, name), node.record_of(generation, name))
                 for name, (source, to) in pairs.items() if source == mine]
        coming = [Receiving(self._group, source, node, generation, name)
                  for name, (source, to) in pairs.items() if to == mine]
        run_together([*going, *(each.messages() for each in coming)])
        return coming

    def to_partners(self) -> dict[str, tuple[int, int]]:
        """The pairs by which each rank gives its copy to its partner."""
        return {rank_name(rank): (rank, to) for rank, to in enumerate(self.of) if to != rank}

    def problems(self, problem: str | None) -> list[str]:
        """What failed on any rank, the same on all; empty where nothing did. Collective, over the group of the copies."""
        if self._group is None:
            return [f"rank 0: {problem}"] if problem else []
        failed = torch.tensor([problem is not None], dtype=torch.int64)
        torch_dist.all_reduce(failed, group=self._group)
        if not int(failed):
            return []
        found: list[str | None] = [None] * self._ranks.world_size
        torch_dist.all_gather_object(found, problem, group=self._group)
        return [f"rank {rank}: {why}" for rank, why in enumerate(found) if why]


def _allow_connections(number: int) -> None:
    """Let this process open so many files more, as far as it may: gloo connects all ranks with each other, and a usual limit
    is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = soft + number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
