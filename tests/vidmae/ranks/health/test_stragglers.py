"""Who is named as holding up the others: the judgement alone, and real ranks of which one is slow."""

import json
import statistics
from types import SimpleNamespace

import pytest
import torch

from jobs import status
from jobs.standing.runs import State
from tests.support.ranks import run_ranks
from vidmae.ranks.health import pace
from vidmae.ranks.health.stragglers import (
    COMPUTES,
    EXCHANGES,
    WAITS,
    Judge,
    OwnTimes,
    Slow,
    excess_of,
    read_slow,
    write_slow,
)
from vidmae.runs.nodes.left_out import nodes_left_out
from vidmae.runs.record import RunFolder
from vidmae.settings.keeping_config import RecoveryConfig
from vidmae.settings.layers import ConfigError

EXCHANGE_S = 0.1
NODES = ["n0", "n0", "n1", "n1", "n2", "n2", "n3", "n3"]


def a_step(waited_s, forward_s, *, exchange_s=EXCHANGE_S):
    """What ranks measure in a step that is made of these parts: all take as long as the slowest."""
    step_s = max(waited + 3 * forward for waited, forward in zip(waited_s, forward_s, strict=True)) + exchange_s
    return [OwnTimes(step_s, waited, forward) for waited, forward in zip(waited_s, forward_s, strict=True)]


def even(**slow):
    """Eight ranks that wait 0 s and compute 0.1 s, and others by number: w3=0.5 waits, f3=0.2 computes."""
    waited_s, forward_s = [0.0] * 8, [0.1] * 8
    for name, seconds in slow.items():
        {"w": waited_s, "f": forward_s}[name[0]][int(name[1:])] = seconds
    return excess_of(a_step(waited_s, forward_s))


@pytest.mark.parametrize(("slow", "rank", "lost_s"), [({"w3": 0.4}, 3, 0.4), ({"f5": 0.3}, 5, 0.6), ({"w1": 0.1, "f6": 0.2}, 6, 0.3)])
def test_what_a_slow_rank_costs_is_the_step_with_it_less_the_step_without(slow, rank, lost_s):
    found, quick = even(**slow), even()
    assert found.slowest_rank == rank and found.straggle == pytest.approx(lost_s / found.step_s)
    others = {name: seconds for name, seconds in slow.items() if name[1:] != str(rank)}
    assert found.step_s - even(**others).step_s <= lost_s + 1e-9
    assert found.by_rank_pct[rank] == pytest.approx(100 * (found.step_s / quick.step_s - 1)) and quick.straggle == 0


def judged(*steps, every_s=10.0, **limits):
    judge, left = Judge(NODES, RecoveryConfig(**limits)), []
    for n, excess in enumerate(steps):
        left += [slow.node for slow in judge.add(excess, n * every_s)]
    return judge, left


def test_one_slow_comparison_accuses_nobody_and_most_of_them_do():
    for pattern in ([1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [1, 0, 0], [1, 1]):
        assert judged(*(even(f3=0.3) if slow else even() for slow in pattern))[0].named == []
    for pattern in ([1, 1, 1], [0, 1, 1, 0, 1, 1], [0] * 10 + [1] * 3):
        (named,) = judged(*(even(f3=0.3) if slow else even() for slow in pattern))[0].named
        assert (named.node, named.ranks, named.cause) == ("n1", (3,), COMPUTES)


def test_a_named_node_stays_named_at_the_border_and_goes_when_it_is_quick():
    border, under, well = even(f3=0.13), even(f3=0.12), even(f3=0.108)
    assert [round(e.by_rank_pct[3]) for e in (border, under, well)] == [22, 15, 6]
    assert judged(*[under] * 5)[0].named == []
    assert [slow.node for slow in judged(*[border] * 5, *[under] * 5)[0].named] == ["n1"]
    assert judged(*[border] * 5, *[well] * 5)[0].named == []


def test_several_are_named_by_node_the_worst_first_and_with_their_cause():
    slow = even(w4=0.6, w5=0.7, f0=0.2)
    judge, _ = judged(slow, slow, slow)
    assert [(each.node, each.ranks, each.cause) for each in judge.named] == [("n2", (4, 5), WAITS), ("n0", (0,), COMPUTES)]
    assert judge.named[0].pct == pytest.approx(175)
    assert str(judge.named[0]) == "node n2 (ranks 4, 5) makes steps 175 % longer: waiting for clips"


def test_an_exchange_that_became_slow_accuses_no_node():
    quick, slow = (excess_of(a_step([0.0] * 8, [0.1] * 8, exchange_s=s)) for s in (0.1, 0.4))
    judge, left = judged(*[quick] * 5, *[slow] * 5, leave_out_pct=20.0, leave_out_s=0.0)
    (named,) = judge.named
    assert (named.node, named.cause, left) == ("", EXCHANGES, []) and named.pct == pytest.approx(75)
    assert str(named).startswith("steps take 75 % longer than they did, and no rank is slow by itself")
    all_slow = excess_of(a_step([0.0] * 8, [0.2] * 8, exchange_s=0.4))
    assert judged(*[quick] * 5, *[all_slow] * 5)[0].named == [], "a busy machine is no slow exchange"


def test_a_node_is_left_out_once_it_was_slow_for_long_enough():
    slow, limits = even(f3=0.3), {"leave_out_pct": 30.0, "leave_out_s": 60.0}
    assert judged(*[slow] * 8, **limits)[1] == [], "10 s between two, the first that counts is the third"
    assert judged(*[slow] * 20, **limits)[1] == ["n1"], "and once"
    assert judged(*[slow] * 5, *[even()] * 5, *[slow] * 7, **limits)[1] == [], "the time begins anew"
    assert judged(*[slow] * 20)[1] == [], "off by default"
    assert judged(*[even(f3=0.12)] * 20, **limits)[1] == []


def test_another_kind_of_nodes_is_not_left_out_nor_a_run_of_one_node():
    limits = {"leave_out_pct": 30.0, "leave_out_s": 0.0}
    half = even(f0=0.3, f1=0.3, f2=0.3, f3=0.3)
    judge, left = judged(*[half] * 20, **limits)
    assert len(judge.named) == 2 and len(left) == 1, "a tenth of the nodes, one at least"
    alone = Judge(["n0"] * 8, RecoveryConfig(**limits))
    assert [alone.add(even(f3=0.3), n) for n in range(9)] == [[]] * 9 and alone.named[0].ranks == (3,)


def test_of_two_nodes_the_quicker_one_is_the_norm():
    judge = Judge(["a", "b"], RecoveryConfig(leave_out_pct=30.0, leave_out_s=0.0))
    left = [slow.node for n in range(4) for slow in judge.add(excess_of(a_step([0.0, 0.0], [0.1, 0.2])), n)]
    assert left == ["b"]


@pytest.mark.parametrize("wrong", [{"compare_steps": -1}, {"slow_pct": 0}, {"leave_out_pct": 10}, {"leave_out_s": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"recovery.{next(iter(wrong))}"):
        RecoveryConfig(**wrong)


def test_status_names_who_is_slow_while_that_job_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run, slow = RunFolder(tmp_path / "s-12345678"), [Slow("n1", (3,), 45.4, WAITS)]
    run.path.mkdir()
    write_slow(run, slow, 0.3)
    assert read_slow(run, "7") == slow and read_slow(run, "8") == []
    running, over = State(run, "7", "slurm", "RUNNING", True), State(run, "7", "slurm", "FAILED", False)
    assert status.show([running], [], SimpleNamespace(json=False)) == 0
    assert "s-12345678: node n1 (rank 3) makes steps 45 % longer: waiting for clips\n" in capsys.readouterr().err
    assert status.record_of(running)["slow"] == [{"node": "n1", "ranks": (3,), "pct": 45.4, "cause": WAITS}]
    waiting = State(run, "7", "slurm", "PENDING", True)
    assert status.record_of(over)["slow"] == status.record_of(waiting)["slow"] == [], "what it said before it was requeued is over"
    run.slow.write_text("{")
    assert read_slow(run, "7") == []


class Passed:
    """A CUDA event."""

    made = 0

    def __init__(self, *, enable_timing):
        self.number, self.done = Passed.made, True
        Passed.made += enable_timing

    def record(self):
        pass

    def query(self):
        return self.done

    def elapsed_time(self, other):
        return 5.0 * (other.number - self.number)  # ms


def test_on_a_gpu_events_time_the_forward_passes_of_training_alone(monkeypatch):
    monkeypatch.setattr(pace.torch.cuda, "Event", Passed)
    net = torch.nn.Linear(2, 2)
    clock = pace.ForwardClock(net, torch.device("cuda"))
    net(torch.ones(1, 2))
    net(torch.ones(1, 2))
    net.eval()(torch.ones(1, 2))
    assert clock.take_s() == pytest.approx(0.010) and clock.take_s() == 0
    net.train()(torch.ones(1, 2))
    clock._passes[0][1].done = False
    assert clock.take_s() == 0, "nothing waits for a GPU that is not done"


def test_ranks_find_the_slow_one_among_them(tmp_path):
    """Three real ranks; in the middle of their steps the forward pass of the last one takes longer."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    first, *others = run_ranks("tests.support.programs.health.pace", str(run.path), world_size=3)
    assert others == [{"metrics": [], "said": [], "slow": None}] * 2
    metrics = {m["step"]: m for m in first["metrics"]}
    assert set(metrics) == set(range(4, 61, 2)), "every 2 steps; the first step does not count"
    slow = [metrics[step] for step in range(24, 41, 2)]
    assert all(m["slowest_rank"] == 2 for m in slow)
    assert 0.3 < statistics.median(m["straggle"] for m in slow) < 1
    assert first["slow"]["slow"][0] | {"pct": 0} == {"node": "node2", "ranks": [2], "pct": 0, "cause": COMPUTES}
    said = [line for line in first["said"] if "node2" in line]
    assert "node node2 (rank 2) makes steps" in said[0] and said[0].endswith(f"longer: {COMPUTES}"), said
    assert "no longer holds up" in said[-1] and json.loads(run.slow.read_text())["slow"] == [], said
    assert list(nodes_left_out(run)) == ["node2"] and any("left out when the job next stops" in line for line in said)
