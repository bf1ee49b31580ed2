"""How fast the links of a job are: of all ranks together, around each node, and of each node with two neighbours in a ring.

    nodes  0 - 1 - 2 - 3 - 0        each edge is an exchange of two ranks, of all local ranks at the same time

A node whose link is bad is slow with both neighbours, and each neighbour is fast with the node on its other side. So two
measurements name it, whatever the number of nodes; two nodes have one edge, which names nobody.

All ranks together do an all-reduce. Parts of them do the exchanges that a ring all-reduce consists of: send and receive at
once. A process group for each part would cost NCCL seconds and memory, and gloo cannot make the same group twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as torch_dist

from vidmae.ranks.dist import Ranks

BYTES = {"cuda": 2**28, "cpu": 2**22}
WARM_UP, REPEATS = 2, 5
Edge = tuple[int, int]


def rounds(nodes: int) -> list[list[Edge]]:
    """The edges of a ring of nodes, in rounds in which no node has two: two rounds, three where the nodes are odd."""
    if nodes < 3:
        return [[(0, 1)]] if nodes == 2 else []
    ring = [(i, (i + 1) % nodes) for i in range(nodes)]
    paired = ring[:-1] if nodes % 2 else ring
    return [paired[::2], paired[1::2], *([[ring[-1]]] if nodes % 2 else [])]


def whole(ranks: Ranks) -> float | None:
    """GB/s of an all-reduce of all ranks: bytes of the array by seconds; None for one rank. Collective."""
    if ranks.world_size == 1:
        return None
    values = torch.ones(BYTES[ranks.device.type] // 4, device=ranks.device)
    # the largest of ones: they stay ones
    return _speed(ranks.device, values, lambda: torch_dist.all_reduce(values, torch_dist.ReduceOp.MAX))


def inside(ranks: Ranks, nodes: Sequence[str]) -> float | None:
    """GB/s that this rank sends and receives while the ranks of its node pass arrays on in a ring. Collective.

    Args:
        ranks: All ranks.
        nodes: The node of each rank.
    Returns:
        None where the node has one rank.
    """
    mine = [rank for rank, node in enumerate(nodes) if node == nodes[ranks.rank]]
    place = mine.index(ranks.rank)
    return _exchange(ranks.device, mine[(place + 1) % len(mine)], mine[place - 1]) if len(mine) > 1 else None


def across(ranks: Ranks, nodes: Sequence[str]) -> dict[str, float]:
    """GB/s that this rank exchanges with the rank of the same place on each neighbour, by its node. Collective."""
    of_node: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        of_node.setdefault(node, []).append(rank)
    order = list(of_node)
    me, place = order.index(nodes[ranks.rank]), of_node[nodes[ranks.rank]].index(ranks.rank)
    found = {}
    for edges in rounds(len(order)):
        for edge in edges:
            other = order[edge[1] if edge[0] == me else edge[0]]
            if me in edge and place < len(of_node[other]):
                peer = of_node[other][place]
                found[other] = _exchange(ranks.device, peer, peer)
        ranks.barrier()
    return found


def _exchange(device: torch.device, to: int, source: int) -> float:
    """GB/s one way, sending an array to one rank while one comes from another, or from the same."""
    mine = torch.ones(BYTES[device.type] // 4, device=device)
    others = torch.empty_like(mine)

    def once() -> None:
        pair = [torch_dist.P2POp(torch_dist.isend, mine, to), torch_dist.P2POp(torch_dist.irecv, others, source)]
        for request in torch_dist.batch_isend_irecv(pair):
            request.wait()

    return _speed(device, mine, once)


def _speed(device: torch.device, values: torch.Tensor, once: Callable[[], object]) -> float:
    for repeat in range(WARM_UP + REPEATS):
        if repeat == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        once()
    _wait(device)
    return REPEATS * values.numel() * values.element_size() / (time.perf_counter() - began) / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
