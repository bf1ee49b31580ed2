"""ZeRO's shards of one number of ranks (and stage 1, 2 or 3), cut anew for another: exact copies, nothing is computed.

All numbers of the model, parameter after parameter and group after group, stand in one long line. A layout says which
part of the line each rank holds, so a new rank finds every number of its own in the files of the old ones:

    line             | p0        | p1    | p2             | p3 |
    stages 1 and 2   [ rank 0            | rank 1              ]     each group cut into equal runs
    stage 3          [ 0   | 1   | 0 | 1 | 0      | 1     |0| 1]     each parameter cut into equal runs

Old files are mapped, not read: a rank touches what it needs, a parameter's piece at a time.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALIGN = 2  # numbers: ZeRO 1 and 2 make each rank's run of a group a multiple of it
Groups = list[list[int]]  # numbers of each parameter, by parameter group


@dataclass(frozen=True, order=True)
class Piece:
    """Numbers `start` to `stop` of the line; they stand in `group` of `rank` from `at` on."""

    start: int
    stop: int
    rank: int
    group: int
    at: int


def run_length(numel: int, stage: int, world_size: int) -> int:
    """Numbers per rank of a group (stages 1 and 2) or of a parameter (stage 3), the last rank's padding included."""
    unit = world_size * (1 if stage == 3 else ALIGN)
    return -(-numel // unit) * unit // world_size


def group_lengths(groups: Groups, stage: int, world_size: int) -> list[int]:
    """Numbers that each rank holds of each group, padding included."""
    if stage == 3:
        return [sum(run_length(n, stage, world_size) for n in group) for group in groups]
    return [run_length(sum(group), stage, world_size) for group in groups]


def layout(groups: Groups, stage: int, world_size: int, rank: int) -> list[Piece]:
    """What a rank holds, in the order of the line."""
    pieces, begin = [], 0
    for index, group in enumerate(groups):
        at = 0
        for numel in group if stage == 3 else [sum(group)]:
            length = run_length(numel, stage, world_size)
            start, stop = begin + rank * length, begin + min(numel, (rank + 1) * length)
            if start < stop:
                pieces.append(Piece(start, stop, rank, index, at))
            at += length
            begin += numel
    return pieces


class OldShards:
    """The optimizer states that a job of `world_size` ranks saved in `folder`.

    Args:
        folder: Where deepspeed's files are.
        stage: ZeRO stage that they were saved in.
        world_size: Number of files.
        groups: Sizes of the model's parameters.
        load: Opens one of the files.
    Attributes:
        counters: What deepspeed counts besides, alike on all ranks.
    """

    def __init__(self, folder: Path, *, stage: int, world_size: int, groups: Groups, load: Callable[..., Any]) -> None:
        by_rank = {int(m[1]): path for path in folder.iterdir()
                   if (m := re.search(r"zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$", path.name))}
        assert sorted(by_rank) == list(range(world_size)), f"{folder} holds the shards of ranks {sorted(by_rank)}"
        files = [load(by_rank[r], map_location="cpu", mmap=True) for r in range(world_size)]
        self._version, self._shards = files[0]["ds_version"], [file["optimizer_state_dict"] for file in files]
        counted = load(min(folder.glob("*mp_rank_00_model_states.pt")), map_location="cpu", mmap=True)
        self.counters = {name: counted[name] for name in ("global_steps", "global_samples", "skipped_steps")}
        self._keys = _keys(stage)
        pieces = sorted(p for r in range(world_size) for p in layout(groups, stage, world_size, r))
        self._pieces, self._starts, self._groups = pieces, [p.start for p in pieces], groups

    def shard(self, stage: int, world_size: int, rank: int) -> dict[str, Any]:
        """The optimizer state as `rank` of `world_size` would have saved it in another `stage`."""
        weights, averages = _keys(stage)
        old = self._shards[0]
        old_weights, old_averages = self._keys
        common = {key: old[key] for key in ("loss_scaler", "dynamic_loss_scale", "overflow")}

        def cut(key: str, group: int) -> Tensor:
            return self._cut(group, lambda r, g: self._shards[r][old_averages]["state"][g][key], stage, world_size, rank)

        state = {group: {key: cut(key, group) if value.dim() else value.clone() for key, value in one.items()}
                 for group, one in old[old_averages]["state"].items()}
        flat = self.cut([shard[old_weights] for shard in self._shards], stage, world_size, rank)
        return {**common, "ds_version": self._version, weights: flat,
                averages: {"state": state, "param_groups": old[old_averages]["param_groups"]}}

    def cut(self, lines: Sequence[Sequence[Tensor]], stage: int, world_size: int, rank: int) -> list[Tensor]:
        """Numbers that lie as the master weights do, cut anew.

        Args:
            lines: By old rank, and of each by group.
            stage, world_size, rank: Who asks.
        """
        return [self._cut(group, lambda r, g: lines[r][g], stage, world_size, rank) for group in range(len(self._groups))]

    def _cut(self, group: int, find: Callable[[int, int], Tensor], stage: int, world_size: int, rank: int) -> Tensor:
        """A group as `rank` of `world_size` has it; `find` gives that of an old rank."""
        out = torch.zeros(group_lengths(self._groups, stage, world_size)[group])
        for piece in layout(self._groups, stage, world_size, rank):
            if piece.group == group:
                self._fill(out[piece.at:piece.at + piece.stop - piece.start], piece, find)
        return out

    def _fill(self, out: Tensor, piece: Piece, find: Callable[[int, int], Tensor]) -> None:
        at = piece.start
        while at < piece.stop:
            old = self._pieces[bisect_right(self._starts, at) - 1]
            n = min(piece.stop, old.stop) - at
            source = find(old.rank, old.group)
            out[at - piece.start:at - piece.start + n] = source[old.at + at - old.start:][:n]
            at += n


def _keys(stage: int) -> tuple[str, str]:
    """deepspeed's names of the master weights and of the inner optimizer's state."""
    return ("fp32_flat_groups", "optimizer_state_dict") if stage == 3 else (
        "single_partition_of_fp32_groups", "base_optimizer_state")

