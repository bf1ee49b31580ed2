"""Which nodes are named by what ranks measured, and what is done about it; numbers are made up, verdicts are worked out by hand."""

import time
from dataclasses import replace

import numpy as np
import pytest

from vidmae.ranks.health.node_facts import FolderFacts, GpuFacts, NodeFacts, RankFacts
from vidmae.ranks.health.node_verdicts import _median_of_others, better, decide, judge

VERSIONS = {"code": "aa", "torch": "2.13.0"}


def job(nodes: int, of_each: int = 1, *, gpu: bool = False) -> list[RankFacts]:
    """A job in which nothing is wrong; speeds differ by a twentieth."""
    ring = {node: [f"cn{(node - 1) % nodes}", f"cn{(node + 1) % nodes}"] for node in range(nodes)}
    found = []
    for rank in range(nodes * of_each):
        node, wave = rank // of_each, 1 + 0.05 * (rank % 3) / 2
        folders = (FolderFacts("run", 500.0, 900 * wave), FolderFacts("stage", 800 * wave, 2000 * wave), FolderFacts("tmp", 9.0),
                   FolderFacts("shm", 60.0))
        found.append(RankFacts(
            rank, f"cn{node}", 600 * wave, 2500 * wave, 80 * wave, 200 * wave if of_each > 1 else None,
            {peer: 20 * wave for peer in ring[node] if peer != f"cn{node}"}, GpuFacts("NVIDIA H100 80GB HBM3", 1.2) if gpu else None, "",
            NodeFacts(1e9 + 0.01 * node, VERSIONS, folders) if rank % of_each == 0 else None))
    return found


def named(ranks):
    return {(finding.node, finding.check, finding.blames) for finding in judge(ranks)}


@pytest.mark.parametrize(("nodes", "of_each"), [(1, 1), (1, 8), (2, 1), (2, 8), (3, 4), (7, 8)])
@pytest.mark.parametrize("gpu", [False, True])
def test_nobody_is_named_where_speeds_differ_by_a_twentieth(nodes, of_each, gpu):
    assert judge(job(nodes, of_each, gpu=gpu)) == []


@pytest.mark.parametrize(("field", "check"), [("product_tflops", "product"), ("memory_gb_s", "memory"), ("inside_gb_s", "inside")])
@pytest.mark.parametrize(("nodes", "share", "slow"), [(4, 0.85, False), (4, 0.58, True), (2, 0.70, False), (2, 0.35, True)])
def test_a_slow_rank_names_its_node_and_the_limit_is_wider_for_two_nodes(field, check, nodes, share, slow):
    ranks = job(nodes, 8, gpu=True)
    ranks[11] = replace(ranks[11], **{field: share * getattr(ranks[11], field)})
    assert named(ranks) == ({("cn1", check, True)} if slow else set())


def test_a_node_all_of_whose_ranks_are_slow_is_named_once_with_its_worst():
    ranks = [replace(r, product_tflops=300.0 - r.rank) if r.node == "cn1" else r for r in job(2, 8, gpu=True)]
    (finding,) = judge(ranks)
    assert finding.node == "cn1" and finding.speed and "285 TFLOP/s on rank 15, 48% of the others' 600" in finding.text
    assert "and 7 more ranks" in finding.text


def test_on_one_node_gpus_are_compared_with_each_other():
    ranks = job(1, 8, gpu=True)
    ranks[5] = replace(ranks[5], memory_gb_s=1000.0)
    assert named(ranks) == {("cn0", "memory", True)}


def test_a_cpu_may_be_slower_than_a_gpu_before_it_is_named():
    ranks = job(4)
    ranks[2] = replace(ranks[2], product_tflops=240.0)
    assert judge(ranks) == []
    ranks[2] = replace(ranks[2], product_tflops=150.0)
    assert named(ranks) == {("cn2", "product", True)}


@pytest.mark.parametrize("nodes", [3, 4, 5, 8])
def test_the_node_with_the_bad_link_is_named_and_not_its_neighbours(nodes):
    ranks = [replace(r, across_gb_s={peer: 2.0 if "cn1" in (r.node, peer) else speed for peer, speed in r.across_gb_s.items()})
             for r in job(nodes, 2, gpu=True)]
    assert named(ranks) == {("cn1", "across", True)}


def test_of_two_nodes_a_slow_link_blames_nobody():
    ranks = job(2, 8, gpu=True)
    for i in (3, 11):
        ranks[i] = replace(ranks[i], across_gb_s=dict.fromkeys(ranks[i].across_gb_s, 1.0))
    assert named(ranks) == {("cn0 or cn1", "across", False)}
    assert decide(judge(ranks), ["cn0", "cn1"], enforce=True, before=[], requeues=True).action == "warned"


def test_what_a_gpu_says_of_itself():
    sick = {"ecc_errors": 3, "rows": "failed", "xids": (79,), "others": 1}
    for key, value in sick.items():
        ranks = job(3, 2, gpu=True)
        ranks[4] = replace(ranks[4], gpu=replace(ranks[4].gpu, **{key: value}))
        assert named(ranks) == {("cn2", "gpu", True)}, key
    well = {"ecc_errors": 0, "others": 0, "temperature_c": 80, "pcie_lanes": 16, "nvlinks": 18, "slowed": ("too hot",)}
    assert judge([replace(r, gpu=replace(r.gpu, **well)) for r in job(3, 2, gpu=True)]) == []


def test_a_gpu_in_use_and_one_with_fewer_lanes_stand_out_beside_others():
    ranks = job(3, 2, gpu=True)
    ranks[1] = replace(ranks[1], gpu=replace(ranks[1].gpu, used_gib=9.0))
    assert named(ranks) == {("cn0", "gpu", True)}
    ranks = [replace(r, gpu=replace(r.gpu, pcie_lanes=8 if r.rank == 5 else 16, nvlinks=17 if r.rank == 2 else 18)) for r in job(3, 2, gpu=True)]
    assert [(f.node, f.text) for f in judge(ranks)] == [("cn1", "GPU of rank 2: 17 NVLinks, most have 18"),
                                                        ("cn2", "GPU of rank 5: 8 PCIe lanes, most have 16")]


def test_a_job_whose_gpus_are_all_slow_is_told_and_no_node_is_blamed():
    ranks = [replace(r, product_tflops=200.0) for r in job(2, 1, gpu=True)]  # of 989 on the data sheet
    assert named(ranks) == {("cn0", "data-sheet", False), ("cn1", "data-sheet", False)}


def on_node(ranks, node, **changed):
    return [replace(r, of_node=replace(r.of_node, **changed)) if r.node == node and r.of_node else r for r in ranks]


def test_a_folder_that_takes_no_files_and_one_that_is_slow_or_small():
    full = (FolderFacts("run", 500.0, 900.0), FolderFacts("stage", 0.0, problem="No space left on device"))
    assert named(on_node(job(2), "cn1", folders=full)) == {("cn1", "folder", True)}
    slow = (FolderFacts("run", 500.0, 20.0), FolderFacts("stage", 30.0, 50.0), FolderFacts("shm", 0.1))
    assert named(on_node(job(4), "cn1", folders=slow)) == {("cn1", check, True) for check in
                                                          ("write-run", "write-stage", "room-stage", "room-shm")}


def test_clocks_and_versions_by_the_majority_and_of_two_nodes_nobody():
    assert named(on_node(job(5), "cn3", time_s=1e9 + 30)) == {("cn3", "clock", True)}
    assert named(on_node(job(2), "cn1", time_s=1e9 + 30)) == {("cn0 or cn1", "clock", False)}
    (finding,) = judge(on_node(job(3), "cn0", versions={**VERSIONS, "torch": "2.12.0"}))
    assert (finding.node, finding.text, finding.blames) == ("cn0", "torch 2.12.0, most nodes have 2.13.0", True)
    (finding,) = judge(on_node(job(2), "cn1", versions={**VERSIONS, "code": "bb"}))
    assert (finding.text, finding.blames) == ("code differs: cn0 aa, cn1 bb", False)
    (finding,) = judge(on_node(job(3), "cn2", versions={"code": "aa"}))
    assert finding.text == "torch unknown, most nodes have 2.13.0"


def test_a_rank_that_could_not_measure_is_named():
    ranks = job(3)
    ranks[2] = replace(ranks[2], problem="CUDA error: uncorrectable ECC error", product_tflops=None)
    (finding,) = judge(ranks)
    assert (finding.node, finding.check, finding.blames) == ("cn2", "failed", True) and "rank 2: CUDA error" in finding.text


def test_the_better_of_two_measurements_counts():
    once = job(4)
    once[1] = replace(once[1], product_tflops=10.0, of_node=replace(once[1].of_node, folders=(FolderFacts("run", 500.0, 5.0),)))
    twice = job(4)
    twice[2] = replace(twice[2], memory_gb_s=1.0, across_gb_s={})
    assert {check for _, check, _ in named(once)} == {"product", "write-run"} and named(twice) == {("cn2", "memory", True)}
    assert judge(better(once, twice)) == []
    assert named(better(once, once)) == named(once)


def decided(bad, nodes=8, **more):
    ranks = [replace(r, memory_gb_s=1.0) if r.node in bad else r for r in job(nodes)]
    told = {"enforce": True, "before": [], "requeues": True, **more}
    return decide(judge(ranks), [f"cn{i}" for i in range(nodes)], **told)


def test_what_is_done():
    assert decided([]).action == "none"
    assert decided(["cn3"], enforce=False).action == "warned"
    assert decided(["cn3"]) == decided(["cn3"], before=["cn7"])
    assert (decided(["cn3"]).action, decided(["cn3", "cn5"]).nodes) == ("requeued", ("cn3", "cn5"))
    assert decided(["cn0"], nodes=2).action == "requeued"


def test_no_job_is_requeued_for_ever():
    again = decided(["cn3", "cn5"], before=["cn5"])
    assert again.action == "failed" and "cn5: this job has left it out before" in again.why and "--checks warn" in again.why
    most = on_node(on_node(job(3), "cn0", folders=(bad := (FolderFacts("tmp", problem="Read-only file system"),))), "cn1", folders=bad)
    told = decide(judge(most), ["cn0", "cn1", "cn2"], enforce=True, before=[], requeues=True)
    assert told.action == "failed" and "2 of 3 nodes" in told.why
    here = decided(["cn3"], requeues=False)
    assert here.action == "failed" and "nothing requeues a job on this machine" in here.why


def test_the_median_of_the_others_is_that_of_numpy():
    draws = np.random.default_rng(0)
    for n in (2, 3, 4, 5, 9, 16):
        values = draws.integers(0, 6, n).astype(float)
        wanted = [np.percentile(np.delete(values, i), 50, method="higher") for i in range(n)]
        assert _median_of_others(list(values)) == wanted
    assert _median_of_others([3.0]) == [0.0]


def test_a_thousand_ranks_are_judged_in_no_time():
    ranks = job(128, 8, gpu=True)
    ranks[500] = replace(ranks[500], product_tflops=100.0)
    began = time.process_time()
    assert {finding.node for finding in judge(ranks)} == {"cn62"}
    assert time.process_time() - began < 2
