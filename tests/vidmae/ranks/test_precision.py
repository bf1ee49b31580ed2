"""train.precision auto: what is faster where a run starts, said, written down and kept."""

import signal

import pytest

from tests.support.interruptions import wait_for_step
from tests.support.runs import finish, make_manifest, make_run, start
from vidmae.ranks.precision import assumed, choose
from vidmae.ranks.saving.checkpoint import complete_steps
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import read_json

SLOW_16_BITS, FAST_16_BITS = "329e9 165e9", "100e9 400e9"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("clips"))


def train(run, rates, world_size=1):
    codes, said = finish(start(run, world_size=world_size, program="tests.support.programs.rates", env={"RATES": rates}))
    return codes, said


@pytest.mark.parametrize(("fp32", "bf16", "expected"), [(329, 165, "fp32"), (100, 400, "bf16"), (100, 110, "fp32"), (100, 130, "bf16")])
def test_16_bits_must_be_clearly_faster(fp32, bf16, expected):
    assert choose({"fp32": fp32, "bf16": bf16}) == expected


def test_estimates_assume_what_takes_more_memory():
    assert assumed("auto", on_cpu=True) == "fp32" and assumed("auto", on_cpu=False) == "bf16"
    assert assumed("fp16", on_cpu=False) == "fp16"


@pytest.mark.parametrize(("rates", "expected"), [(SLOW_16_BITS, "fp32"), pytest.param(FAST_16_BITS, "bf16", marks=pytest.mark.slow)])
def test_the_faster_one_is_taken_said_and_recorded(manifest, tmp_path, rates, expected):
    run, asked = (make_run(tmp_path / name, manifest, f"train.precision={value}") for name, value in (
        ("auto", "auto"), ("asked", expected)))
    codes, said = train(run, rates)
    assert codes == [0] and f"train.precision auto: {expected} (matrix products on this CPU: fp32 " in said
    assert f", {expected}, ZeRO" in said, "the loop trains with it"
    assert read_json(run.result)["precision"] == read_json(run.precision)["precision"] == expected
    assert train(asked, rates)[0] == [0] and not asked.precision.exists()
    assert asked.weights.read_bytes() == run.weights.read_bytes()


def test_a_run_that_goes_on_keeps_it_on_another_processor_and_on_all_ranks(manifest, tmp_path):
    settings = ["train.precision=auto", "train.phases=[{duration: 16 steps, lr: 1.0e-3}]", "checkpoint.every_steps=100",
                "train.micro_batch=1"]
    whole, stopped = (make_run(tmp_path / name, manifest, *settings) for name in ("whole", "stopped"))
    assert train(whole, SLOW_16_BITS, world_size=2)[0] == [0, 0]
    ranks = start(stopped, world_size=2, program="tests.support.programs.rates", env={"RATES": SLOW_16_BITS})
    wait_for_step(stopped, 3, alive=lambda: all(rank.poll() is None for rank in ranks))
    ranks[0].send_signal(signal.SIGTERM)
    assert finish(ranks)[0] == [75, 75] and complete_steps(stopped)
    codes, said = train(stopped, FAST_16_BITS, world_size=2)
    assert codes == [0, 0] and "train.precision auto: fp32 (what the run began with)" in said
    assert stopped.weights.read_bytes() == whole.weights.read_bytes()
    assert [m["loss"] for m in read_metrics(stopped)] == [m["loss"] for m in read_metrics(whole)]
