"""A run whose ranks are killed goes on from copies in memory, and ends bit for bit like one that was left alone."""

import os

import pytest

from tests.support.interruptions import differences, wait_for_step
from tests.support.runs import finish, make_manifest, make_run, start, train
from vidmae.ranks.saving.memory_copies import FOLDER
from vidmae.runs.attempts import read_attempts
from vidmae.runs.metrics import read_metrics

SETTINGS = ["train.zero_stage=2", "train.phases=[{duration: 24 steps, lr: 1.0e-3}]", "checkpoint.every_steps=100"]


def test_a_step_that_is_not_finite_costs_the_steps_since_the_copies(tmp_path):
    """The run that goes back has copies of step 4 alone, the one that it is compared with begins again."""
    manifest, env = make_manifest(tmp_path), {FOLDER: str(tmp_path / "memory")}
    settings = ["train.zero_stage=2", "train.phases=[{duration: 8 steps, lr: 1.0e-3}]", "checkpoint.every_steps=100"]
    whole, run = make_run(tmp_path / "whole", manifest, *settings), make_run(tmp_path / "run", manifest, *settings, "checkpoint.memory_steps=2")
    for each in (whole, run):
        codes, said = train(each, poison=(5,), env=env)
        assert codes == [0], said
    assert "going back to the newest checkpoint" in said and "continuing from copies of step 4 in memory" in said, said
    assert differences(run, whole) == []
    assert [sum(a.repeated_steps for a in read_attempts(each)) for each in (whole, run)] == [5, 1]
    assert list((tmp_path / "memory").glob("*/*/*")) == [], "all is on disk: nothing stays in memory"


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_kill_9_costs_the_steps_since_the_copies(tmp_path, world_size):
    """On one node; that a node is lost with its copies is in the fault matrix (tests/slurm)."""
    manifest, env = make_manifest(tmp_path), {FOLDER: str(tmp_path / "memory")}
    whole, run = make_run(tmp_path / "whole", manifest, *SETTINGS), make_run(tmp_path / "run", manifest, *SETTINGS, "checkpoint.memory_steps=4")
    codes, said = train(whole, world_size=world_size)
    assert codes == [0] * world_size, said
    ranks = start(run, world_size=world_size, env=env)
    wait_for_step(run, 10, alive=lambda: all(p.poll() is None for p in ranks))
    ranks[-1].kill()
    codes, said = finish(ranks)
    assert codes[-1] == -9 and "copies in memory every 4 steps take up to" in said, said
    assert not list(run.checkpoints.glob("step_*"))
    held = list((tmp_path / "memory" / f"vidmae-{os.getuid()}").glob("*/*/step_*/rank_*"))
    assert len(held) >= world_size and all(p.stat().st_mode & 0o077 == 0 for p in held)
    reached = read_metrics(run)[-1]["step"]
    codes, said = train(run, world_size=world_size, env=env)
    assert codes == [0] * world_size and "continuing from copies of step " in said, said
    assert differences(run, whole) == []
    assert list((tmp_path / "memory").glob("*/*/*")) == [], "all is on disk: nothing stays in memory"
    _, second = read_attempts(run)
    assert 4 <= reached - second.repeated_steps == second.first_step and second.repeated_steps <= 7, (reached, second)
