"""Interrupted runs end bit for bit like the uninterrupted one: real ranks, real signals, real clips."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.support.footage import small_clips
from tests.support.interruptions import differences, last_checkpoint, wait_for_step, weights
from tests.support.runs import finish, make_manifest, make_run, start, train
from tests.support.started import Started
from vidmae.ranks import watchdog
from vidmae.ranks.health.hang_report import report_hang
from vidmae.runs.attempts import read_attempts, totals
from vidmae.runs.metrics import read_metrics
from vidmae.runs.nonfinite import window_of
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import build, parse_set
from vidmae.train.trainer import BadWindowError, Trainer

STEPS = 28
LONG = [f"train.phases=[{{duration: {STEPS} steps, lr: 1.0e-3}}]", "checkpoint.every_steps=10"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(manifest, tmp_path_factory):
    """Uninterrupted runs on two ranks, one per ZeRO stage, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def run_of(stage: int):
        if stage not in made:
            made[stage] = make_run(folder / str(stage), manifest, f"train.zero_stage={stage}", *LONG)
            codes, said = train(made[stage], world_size=2)
            assert codes == [0, 0], said
        return made[stage]

    return run_of


def interrupt(run, act, *, at_step, world_size=2):
    """Start the ranks, `act` on them at a step, wait for their end."""
    ranks = start(run, world_size=world_size)
    wait_for_step(run, at_step, alive=lambda: all(p.poll() is None for p in ranks))
    act(ranks)
    return finish(ranks)


@pytest.mark.parametrize(("stage", "name"), [pytest.param(1, "USR2", marks=pytest.mark.slow), (2, "TERM")])
def test_a_signal_to_one_rank_saves_on_all_and_nothing_is_lost(whole, manifest, tmp_path, stage, name):
    run = make_run(tmp_path / "run", manifest, f"train.zero_stage={stage}", "data.workers=1", *LONG)
    codes, said = interrupt(run, lambda ranks: ranks[1].send_signal(getattr(signal, f"SIG{name}")), at_step=3)
    assert codes == [75, 75], said
    stopped_at = read_metrics(run)[-1]["step"]
    assert 3 <= stopped_at < STEPS and f"stopping after step {stopped_at}" in said
    assert not run.lock.exists() and not run.result.exists() and not run.failure.exists()
    codes, said = train(run, world_size=2)
    assert codes == [0, 0] and f"continuing from step_{stopped_at:08d}" in said, said
    assert differences(run, whole(stage)) == []
    compared = [(m["step"], m["slowest_rank"] in (0, 1), 0 <= m["straggle"] < 1) for m in read_metrics(whole(stage)) if "straggle" in m]
    assert compared == [(20, True, True)], "every 20 steps"
    assert not run.stacks.exists(), "no rank hung"
    first, second = read_attempts(run)
    assert (first.ended, first.last_step, second.first_step) == ("preempted", stopped_at, stopped_at)
    assert second.repeated_s == 0 and second.ended == "done"


@pytest.mark.parametrize(("stage", "rank"), [(2, 0), pytest.param(3, 0, marks=pytest.mark.slow)])
def test_kill_9_costs_the_steps_since_the_checkpoint_and_nothing_else(whole, manifest, tmp_path, stage, rank):
    run = make_run(tmp_path / "run", manifest, f"train.zero_stage={stage}", *LONG)
    began = time.monotonic()
    codes, said = interrupt(run, lambda ranks: ranks[rank].kill(), at_step=13)
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 1, said
    assert time.monotonic() - began < 100, "the other rank must notice"
    assert read_json(run.failure)["kind"] == "lost"
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([*lines[:4], lines[2], *lines[6:], '{"step": 1']))  # twice, missing, cut off
    codes, said = train(run, world_size=2)
    assert codes == [0, 0] and "continuing from step_00000010" in said, said
    assert differences(run, whole(stage)) == []
    assert not run.failure.exists()
    accounts = totals(read_attempts(run))
    assert accounts == read_json(run.result)["goodput"] | {"between_s": accounts["between_s"]}
    assert accounts["repeated_s"] > 0 and 0 < accounts["goodput"] < 1


def rank_of(agent: Started) -> int:
    """The process of the rank that an agent watches."""
    return int(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()[0])


def test_a_killed_rank_comes_back_in_place_and_a_signal_still_stops_all(whole, manifest, tmp_path):
    """Agents as in a job: rank 0 is killed, later a signal to one agent alone makes all save and leave."""
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=2", "data.workers=1", "recovery.restarts_in_place=3", *LONG)
    watched = {"world_size": 2, "program": "tests.support.programs.health.watched", "env": {"VIDMAE_JOB_ID": "7"}}
    agents = start(run, **watched)
    wait_for_step(run, 13)
    os.kill(rank_of(agents[0]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(read_attempts(run)) < 2 or not read_attempts(run)[1].last_step:
        assert time.monotonic() < deadline and all(p.poll() is None for p in agents)
        time.sleep(0.02)
    agents[1].send_signal(signal.SIGUSR2)
    codes, said = finish(agents)
    assert codes == [75, 75] and "rank 0 was killed by signal 9: all ranks start again in place (1 of 3" in said, said
    assert "continuing from step_00000010" in said and not run.lock.exists() and not run.failure.exists(), said
    first, second = read_attempts(run)
    assert (first.ended, second.ended, first.restarted, second.first_step) == ("", "preempted", "", 10)
    assert second.restarted == "rank 0 was killed by signal 9" and second.started == first.updated
    assert totals([first, second])["between_s"] == 0 and second.starting_s > 0, "the nodes were held all the time"
    codes, said = train(run, **watched)
    assert codes == [0, 0] and differences(run, whole(2)) == [], said
    assert read_attempts(run)[-1].restarted == ""


@pytest.mark.slow
def test_a_rank_that_hangs_comes_back_in_place_and_is_named(whole, manifest, tmp_path):
    """On a real Slurm the fault matrix has it."""
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=2", "recovery.step_limit_s=6", "recovery.restarts_in_place=3",
                   *LONG)
    agents = start(run, world_size=2, program="tests.support.programs.health.watched", env={"VIDMAE_JOB_ID": "7"})
    wait_for_step(run, 13)
    os.kill(rank_of(agents[1]), signal.SIGSTOP)
    codes, said = finish(agents)
    assert codes == [0, 0] and differences(run, whole(2)) == [], said
    assert read_attempts(run)[1].restarted == "rank 0 left with exit code 1"
    assert "rank 1 (node" in run.hang.read_text() and "gave no sign any more" in said
    assert not run.failure.exists() and not run.stacks.exists()


def test_a_rank_that_hangs_is_given_up_in_time(manifest, tmp_path):
    """What follows, requeueing and the same end, is in the fault matrix (tests/slurm)."""
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=2", "recovery.step_limit_s=4", *LONG,
                   "checkpoint.every_steps=100")  # where a save begins, recovery.start_limit_s counts
    ranks = start(run, world_size=2, env={"VIDMAE_JOB_ID": "7", "SLURMD_NODENAME": "n1"})
    try:
        wait_for_step(run, 12)
        ranks[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        out, _ = ranks[0].communicate(timeout=60)
        assert time.monotonic() - stopped < 15
        assert ranks[0].returncode == 1 and "Timeout (0:00:04)!" in out and "vidmae/train/pretrain.py" in out, out
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    said = report_hang(run, "7")
    assert re.fullmatch(r"rank 1 \(node n1\) gave no sign any more \(wrote nothing in time: .*\), while rank 0 waited at "
                        r"vidmae/ranks/(engine|dist)\.py line \d+ in \w+ \(there .*\)", said), said
    assert read_json(run.failure)["message"].startswith(said) and read_json(run.failure)["kind"] == "lost"
    stacks = run.hang.read_text()
    assert said in stacks and "in train_step" in stacks and "=== rank 1 (node n1)\nnothing was written" in stacks
    assert not any(clip.stem in stacks for clip in small_clips()), "stacks name code and no footage"
    assert not run.stacks.exists() and run.hang.stat().st_mode & 0o777 == 0o600


class Steps(Trainer):
    """The loop of training alone: what may take time notes which limit of the watchdog counts meanwhile."""

    build = clips = inputs = flops_per_clip = attention_shapes = None

    def __init__(self, config, total_steps):
        self.config, self.total_steps, self.step, self.start = config, total_steps, 0, 0
        self.writer, self.log, self.compiled, self.noted = None, None, False, []
        self.profiler = SimpleNamespace(before_step=int, after_step=str, finish=str)
        self.saver = SimpleNamespace(settle=lambda busy: self.note("settle"), begin=lambda step: self.note(f"begin {step}"),
                                     save=lambda step: self.note(f"save {step}"))

    def note(self, what):
        self.noted.append((what, self.limit_s))
        return 0.0

    def train_step(self, step):
        self.note(f"step {step + 1}")
        return {}, False, 0.0

    def export(self):
        self.note("export")


def test_only_what_takes_long_has_the_long_limit(monkeypatch):
    config = build(PretrainConfig, parse_set(["checkpoint.every_steps=2"]))[0]
    loop = Steps(config, 5)
    monkeypatch.setattr(watchdog, "expect_within", lambda limit_s: setattr(loop, "limit_s", limit_s))
    watchdog.expect_within(config.recovery.start_limit_s)  # as the start leaves it
    assert loop.run_to_end()
    long, short = 1800, 600
    assert loop.noted == [
        ("step 1", long), ("settle", short), ("step 2", short), ("settle", short), ("begin 2", long),
        ("step 3", short), ("settle", short), ("step 4", short), ("settle", short), ("begin 4", long),
        ("step 5", short), ("settle", short), ("save 5", long), ("export", long)]


def test_a_save_has_the_long_limit_after_a_step_that_is_not_finite(monkeypatch):
    class Poisoned(Steps):
        def train_step(self, step):
            if step == 1:
                raise BadWindowError("loss", 1, 1, [])
            return super().train_step(step)

    loop = Poisoned(build(PretrainConfig, parse_set(["checkpoint.every_steps=2"]))[0], 5)
    loop.saver.finish = lambda: loop.note("finish")
    monkeypatch.setattr(watchdog, "expect_within", lambda limit_s: setattr(loop, "limit_s", limit_s))
    watchdog.expect_within(1800)
    with pytest.raises(BadWindowError):
        loop.run_to_end()
    assert loop.noted == [("step 1", 1800), ("settle", 600), ("finish", 1800)]


def test_what_differs_is_seen(whole, tmp_path):
    """The comparison that all these tests rest on can fail: for one bit of one number."""
    run = RunFolder(Path(shutil.copytree(whole(2).path, tmp_path / "copy")))
    assert differences(run, whole(2)) == []
    shard = next((last_checkpoint(run) / "state").glob("zero_pp_rank_1*optim_states.pt"))
    state = torch.load(shard, weights_only=False)
    moments = state["optimizer_state_dict"]["base_optimizer_state"]["state"][0]["exp_avg"]
    moments.view(torch.int32)[7] ^= 1
    torch.save(state, shard)
    (found,) = differences(run, whole(2))
    assert found.endswith("state.0.exp_avg")
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join(lines[:-1]) + "\n")
    assert "metrics.jsonl" in differences(run, whole(2))
    values = weights(run)
    values["cls_token"].view(np.int32)[0, 0, 0] ^= 1
    safetensors.numpy.save_file(values, run.weights)
    assert "weights cls_token" in differences(run, whole(2))


def test_windows_are_left_out_in_order():
    taken = [window_of(step, (2, 3, 7)) for step in range(7)]
    assert taken == [0, 1, 4, 5, 6, 8, 9]
    assert [window_of(step, ()) for step in range(4)] == [0, 1, 2, 3]


def test_a_step_that_is_not_finite_is_left_out_on_all_ranks(manifest, tmp_path):
    """A poisoned window at step 15 (a test's hook makes one rank's loss NaN): back to step 10, on with the next window."""
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=2", *LONG)
    codes, said = train(run, world_size=2, poison=(14,))
    assert codes == [0, 0], said
    (incident,) = [json.loads(line) for line in run.nonfinite.read_text().splitlines()]
    assert incident["window"] == 14 and incident["step"] == 15 and "nan" in incident["why"]
    assert [r["rank"] for r in incident["ranks"]] == [0, 1] and all(len(r["rows"]) == 4 for r in incident["ranks"])
    assert len(incident["before"]) == 14 and all(b["grad_norm"] > 0 for b in incident["before"])
    assert "continuing from step_00000010" in said
    clean = make_run(tmp_path / "clean", manifest, "train.zero_stage=2", *LONG)
    clean.nonfinite.write_text(json.dumps({"window": 14}) + "\n")
    assert train(clean, world_size=2)[0] == [0, 0]
    assert differences(run, clean) == []


def test_too_many_bad_windows_fail_loudly(manifest, tmp_path):
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=2", "recovery.max_skips=1", *LONG)
    codes, said = train(run, world_size=2, poison=(4, 7))
    assert codes == [1, 1] and "recovery.max_skips" in said, said
    assert read_json(run.failure)["error"] == "NonFiniteError" and read_json(run.failure)["kind"] == "error"
    assert len(run.nonfinite.read_text().splitlines()) == 1
