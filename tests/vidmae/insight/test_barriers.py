"""Ranks of one shard leave together, also where other shards are not done yet."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest

from vidmae.insight.interpolation import interpolate
from vidmae.insight.surprise import surprise
from vidmae.ranks.program import EXIT_OK


@pytest.mark.parametrize(("program", "work"), [(surprise, "Surprises"), (interpolate, "Interpolation")])
def test_every_rank_comes_to_as_many_barriers_where_shards_are_missing(program: ModuleType, work: str, tmp_path, monkeypatch):
    came = {0: 0, 1: 0}
    for name in ("load", work, "do_part", "describe"):
        monkeypatch.setattr(program, name, lambda *_: lambda *_, **__: None)
    for rank in came:
        def barrier(rank: int = rank) -> None:
            came[rank] += 1

        ranks = SimpleNamespace(rank=rank, world_size=2, device=None, is_main=rank == 0, barrier=barrier)
        monkeypatch.setattr(program.dist, "init", lambda *_, ranks=ranks: ranks)
        monkeypatch.setattr(program, "load", lambda *_: SimpleNamespace(device="cpu"))
        assert getattr(program, program.__name__.rpartition(".")[2])(tmp_path, 0, 2, None) == EXIT_OK
    assert came[0] == came[1] > 0
