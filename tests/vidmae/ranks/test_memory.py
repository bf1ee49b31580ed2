"""Copies in the memory of nodes: which are found again after what was lost, and what room they need. Real deepspeed over gloo."""

import os
from pathlib import Path

import pytest

from tests.support.ranks import run_ranks
from vidmae.ranks.saving import memory_copies
from vidmae.ranks.saving.memory_copies import Generation, NodeCopies, limit_bytes
from vidmae.ranks.saving.partner import partners

BOTH = ["rank_00000", "rank_00001"]


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """What came of every fault in tests/support/programs/health/memory.py, in ZeRO 2; the same on both ranks but for what they say."""
    first, second = run_ranks("tests.support.programs.health.memory", str(tmp_path_factory.mktemp("memory")), "2", world_size=2)
    assert [first[name] | {"said": 0} | {"warned": 0} for name in first] == [second[name] | {"said": 0} | {"warned": 0} for name in first]
    return first


@pytest.mark.parametrize(("fault", "step", "said"), [
    ("whole", 3, "2 of 2 ranks have theirs on their node"),
    ("lost_node", 3, "1 of 2 ranks have theirs on their node, 1 got it from another"),
    ("changed_places", 3, "2 of 2 ranks have theirs on their node"),  # what the partner kept is the own copy now
    ("damaged_own", 3, "optim_states.pt has other content than was written; taking that of b"),
    ("damaged_both", 1, "copies of step 3 in memory are of no use: that of rank 1 on node a"),
    ("cut_off", 3, "copies of step 4 in memory are of no use: no node has those of rank 1"),
    ("newer_on_disk", 3, "continuing from step_00000003"),
    ("damaged_on_disk", 3, "continuing from copies of step 3 in memory"),  # copies are older than the damaged one, newer than the intact
    ("other_stage", 1, "they are of 2 ranks with ZeRO 2 in fp32, this job has 2 with ZeRO 1 in fp32"),
    ("limited", 3, "continuing from copies of step 3 in memory"),
    ("removed", 3, "continuing from step_00000003"),
])
def test_a_run_goes_on_from_the_newest_state_that_is_whole(faults, fault, step, said):
    """Weights, their averages and the records are those of that step, to the bit."""
    seen = faults[fault]
    assert (seen["step"], seen["same"], seen["metrics"]) == (step, True, step), seen
    assert said in "\n".join(seen["said"])
    assert ("step_" in seen["said"][-1]) == (fault in ("damaged_both", "newer_on_disk", "other_stage", "removed"))


def test_each_copy_is_on_two_nodes_and_one_that_was_lost_comes_back(faults):
    assert faults["whole"]["held"] == {"a": BOTH, "b": BOTH}
    assert faults["lost_node"]["held"] == {"a": BOTH, "c": ["rank_00001"]}


def test_a_run_that_is_begun_anew_takes_no_copy_of_before(faults):
    assert faults["begun_anew"]["step"] == 0 and not faults["begun_anew"]["said"]


def test_a_copy_that_fails_on_one_rank_is_said_and_training_goes_on(faults):
    (warned,) = faults["limited"]["warned"]
    assert "copies in memory of step 4 failed: rank 1: /" in warned and "File too large" in warned
    assert "those of step 3 stay" in warned and faults["limited"]["held"] == {"a": BOTH, "b": BOTH}


def test_nothing_stays_in_memory_once_all_is_on_disk(faults):
    assert faults["removed"]["left"] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_other_stages_go_on_from_the_partners_copies(tmp_path, stage):
    first, _ = run_ranks("tests.support.programs.health.memory", str(tmp_path), str(stage), "lost_node", world_size=2)
    assert (first["lost_node"]["step"], first["lost_node"]["same"]) == (3, True), first


@pytest.mark.slow
def test_four_nodes_of_which_two_are_lost_and_two_nodes_with_two_ranks_each(tmp_path):
    """Ranks 0 and 1, then 2 and 3, come back on one node each: that of rank 1 is on node c, that of rank 3 on node a."""
    found = run_ranks("tests.support.programs.health.memory", str(tmp_path), "2", "lost_two", "lost_node", world_size=4)[0]
    for fault in ("lost_two", "lost_node"):
        assert (found[fault]["step"], found[fault]["same"]) == (3, True), found
        assert "2 of 4 ranks have theirs on their node, 2 got it from another" in found[fault]["said"][-1]


def test_the_partner_is_on_the_next_node():
    assert partners(["a", "a", "b", "b", "c", "c"]) == [2, 3, 4, 5, 0, 1]
    assert partners(["a", "b", "a", "b"]) == [1, 0, 3, 2]  # ranks that are dealt out by turns
    assert partners(["a", "a", "a", "b"]) == [3, 3, 3, 0]
    assert partners(["a", "a"]) == [0, 1]


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv(memory_copies.FOLDER, str(tmp_path / "memory"))
    monkeypatch.setenv("SLURMD_NODENAME", "gpu003")
    return NodeCopies(tmp_path / "runs/s-0a1b2c3d", "token")


def put(node: NodeCopies, step: int, rank: int = 0) -> Path:
    """A copy of one file."""
    generation = Generation(step, "0f")
    draft = node.draft(generation, f"rank_{rank:05d}", ["state/a.pt"])
    (draft / "state/a.pt").write_bytes(b"weights")
    node.publish(generation, f"rank_{rank:05d}", {"step": step, "attempt": "0f", "rank": rank, "files": {"state/a.pt": {"bytes": 7, "blake2b": ""}}})
    return node.path(generation, f"rank_{rank:05d}")


def test_copies_are_private_and_of_one_node_and_one_run(node, tmp_path, monkeypatch):
    path = put(node, 5)
    assert path.relative_to(tmp_path / "memory").parts[:2] == (f"vidmae-{os.getuid()}", "gpu003")
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "memory").rglob("*") if p.is_dir())
    assert [record["step"] for record in node.held()] == [5]
    (path / "COPY").rename(path.parent / "COPY")  # cut off before it was whole
    assert node.held() == []
    put(node, 5)
    assert NodeCopies(tmp_path / "runs/s-0a1b2c3d", "another token").held() == []
    assert NodeCopies(tmp_path / "other/s-0a1b2c3d", "token").held() == []
    monkeypatch.setenv("SLURMD_NODENAME", "gpu004")
    assert NodeCopies(tmp_path / "runs/s-0a1b2c3d", "token").held() == []


def test_a_folder_that_others_can_enter_is_not_used(node, tmp_path):
    put(node, 5)
    (tmp_path / f"memory/vidmae-{os.getuid()}").chmod(0o755)
    assert node.held() == [] and "not a folder that only you can enter" in node.why_no_room(1, 0)
    with pytest.raises(PermissionError):
        put(node, 6)


def test_an_older_generation_goes_once_a_newer_one_is_whole(node):
    for step in (5, 10, 15):
        put(node, step)
    node.drop_before(Generation(10, "0f"))
    assert [record["step"] for record in node.held()] == [10, 15]  # the next one may be under way
    node.drop_all_but(Generation(15, "0f"))
    assert [record["step"] for record in node.held()] == [15]


def test_what_other_runs_left_a_day_ago_is_removed(node, tmp_path):
    old, fresh = (NodeCopies(tmp_path / name, "token") for name in ("old", "fresh"))
    for copies in (node, old, fresh):
        put(copies, 5)
    for copies in (node, old):
        for path in (copies.folder, *copies.folder.rglob("*")):
            os.utime(path, (1e9, 1e9))
    assert node.remove_stale() == [old.folder.name]
    assert node.held() and fresh.held() and not old.folder.exists()
    for copies in (node, fresh):
        copies.remove()
    assert list((tmp_path / "memory").glob("*/*/*")) == []


def test_room_is_asked_for_before_the_first_step(node, monkeypatch):
    assert node.why_no_room(2**20, 2**20) is None
    said = node.why_no_room(2**60, 0)
    assert "has room for" in said and memory_copies.FOLDER in said
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1024")
    assert node.why_no_room(2**29, 2**28) is None
    assert "the job may take 1 GiB of memory, 0.75 are taken or needed" in node.why_no_room(2**29, 3 * 2**28)
    monkeypatch.setattr(memory_copies, "available_bytes", lambda: 2**28)
    assert "the node has 0.25 GiB of memory left" in node.why_no_room(2**29, 0)


@pytest.mark.parametrize(("variables", "limit"), [
    ({}, None), ({"MEM_PER_NODE": "0"}, None), ({"MEM_PER_NODE": "512"}, 512 * 2**20),
    ({"MEM_PER_CPU": "256", "CPUS_ON_NODE": "4"}, 2**30), ({"MEM_PER_CPU": "256"}, None)])
def test_the_memory_that_slurm_grants(monkeypatch, variables, limit):
    for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
        if name in variables:
            monkeypatch.setenv(f"SLURM_{name}", variables[name])
    assert limit_bytes() == limit
