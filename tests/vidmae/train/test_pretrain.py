"""The training program as a user's job runs it: real clips, real deepspeed, one and two ranks, every ZeRO stage."""

import hashlib
import json
import re
import shutil
import time

import numpy as np
import pytest

from tests.support.interruptions import untimed, weights
from tests.support.runs import make_manifest, make_run, train
from vidmae.runs.metrics import read_metrics
from vidmae.runs.quarantine import read_quarantine
from vidmae.runs.record import read_json, write_json


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(manifest, tmp_path_factory):
    """The run that all others are compared with: one process, nothing sharded."""
    run = make_run(tmp_path_factory.mktemp("alone") / "run", manifest, "train.zero_stage=0")
    codes, said = train(run)
    assert codes == [0], said
    return run


def losses(run) -> list[float]:
    return [m["loss"] for m in read_metrics(run)]


def test_a_run_leaves_what_the_readme_promises(alone):
    result = read_json(alone.result)
    assert result["steps"] == 4 and result["clips"] == 32 and result["last_loss"] < result["first_loss"]
    assert [m["step"] for m in read_metrics(alone)] == [1, 2, 3, 4]
    assert sorted(p.name for p in alone.checkpoints.iterdir()) == ["step_00000002", "step_00000004"]
    assert read_json(alone.heartbeat)["state"] == "done" and not alone.lock.exists() and not alone.failure.exists()
    assert all(0 <= m["data_wait"] <= 1 and m["mfu"] > 0 and m["peak_gib"] > 0 for m in read_metrics(alone))
    assert all(np.isfinite(w).all() and w.dtype == np.float32 for w in weights(alone).values())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_of_every_stage_follow_one_process(alone, manifest, tmp_path, stage):
    run = make_run(tmp_path / "run", manifest, f"train.zero_stage={stage}")
    codes, said = train(run, world_size=2)
    assert codes == [0, 0], said
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)
    ours, theirs = weights(run), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if not name.endswith("attn.k.bias"):  # its gradient is zero but for rounding, which Adam turns into full steps
            np.testing.assert_allclose(ours[name], value, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("stage", [0, 2])
def test_resume_gives_the_same_run(alone, manifest, tmp_path, stage):
    """Stop after step 2 (as a kill would leave it: later lines in metrics.jsonl, no result), go on, compare bits."""
    whole = make_run(tmp_path / "whole", manifest, f"train.zero_stage={stage}")
    assert train(whole)[0] == [0]
    cut = make_run(tmp_path / "cut", manifest, f"train.zero_stage={stage}")
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    half_line = '{"step": 4, "los'
    lines = whole.metrics.read_text().splitlines()
    cut.metrics.write_text("\n".join([*lines[:3], half_line]))
    codes, said = train(cut)
    assert codes == [0] and "continuing from step_00000002" in said, said
    assert untimed(cut) == untimed(whole)
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(cut)[name], value, err_msg=name)
    if stage == 0:
        assert untimed(whole) == untimed(alone), "the same seed gives the same run"


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_decoder_that_rebuilds_a_part_on_two_ranks_and_after_a_stop(alone, manifest, tmp_path, stage):
    how = "model.decoder_mask_ratio=0.5", f"train.zero_stage={stage}"
    whole, two, cut = (make_run(tmp_path / name, manifest, *how) for name in ("whole", "two", "cut"))
    assert train(whole)[0] == [0] and train(two, world_size=2)[0] == [0, 0]
    np.testing.assert_allclose(losses(two), losses(whole), rtol=1e-5)
    assert not np.allclose(losses(whole), losses(alone), rtol=1e-5), "another objective"
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    codes, said = train(cut)
    assert codes == [0] and "continuing from step_00000002" in said, said
    ours, theirs, others = weights(cut), weights(whole), weights(alone)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in others.items()}
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("control", ["model.mask=tube", "model.mask=causal", "model.temporal_positions=false", "model.t_patch_size=1"])
def test_a_control_on_two_ranks_and_after_a_stop(alone, manifest, tmp_path, control):
    whole, two, cut = (make_run(tmp_path / name, manifest, control, "train.zero_stage=2") for name in ("whole", "two", "cut"))
    assert train(whole)[0] == [0] and train(two, world_size=2)[0] == [0, 0]
    np.testing.assert_allclose(losses(two), losses(whole), rtol=1e-5)
    assert not np.allclose(losses(whole), losses(alone), rtol=1e-5), "another experiment"
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    codes, said = train(cut)
    assert codes == [0] and "continuing from step_00000002" in said, said
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(cut)[name], value, err_msg=name)
    left_out = {"pos_embed_temporal", "decoder_pos_embed_temporal"} if "temporal" in control else set()
    assert weights(alone).keys() - weights(whole).keys() == left_out


def test_the_newest_checkpoints_stay_and_every_so_many_steps_one_for_good(manifest, tmp_path):
    run = make_run(tmp_path / "run", manifest, "checkpoint.every_steps=1", "checkpoint.keep_last=1", "checkpoint.keep_every=2",
                   "train.phases=[{duration: 5 steps, lr: 1.0e-3}]")
    assert train(run)[0] == [0]
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step_00000002", "step_00000004", "step_00000005"]


def test_loader_workers_change_nothing(alone, manifest, tmp_path):
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=0", "data.workers=2")
    assert train(run)[0] == [0]
    assert untimed(run) == untimed(alone)


def test_a_finished_run_is_left_alone(alone):
    before = alone.result.read_bytes()
    codes, said = train(alone)
    assert codes == [0] and "is done" in said and alone.result.read_bytes() == before


@pytest.fixture
def half(alone, manifest, tmp_path):
    """A run that has both its checkpoints but not its end."""
    run = make_run(tmp_path / "half", manifest, "train.zero_stage=0")
    shutil.copytree(alone.checkpoints, run.checkpoints)
    return run


def cut(folder) -> None:
    """Halve the largest file of a checkpoint."""
    largest = max(folder.rglob("*.pt"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_a_cut_checkpoint_is_passed_over_for_the_one_before(alone, half):
    cut(half.checkpoints / "step_00000004")
    codes, said = train(half)
    assert codes == [0], said
    assert "step_00000004: mp_rank_00_model_states.pt has" in said and "continuing from step_00000002" in said
    for name, value in weights(alone).items():
        np.testing.assert_array_equal(weights(half)[name], value)
    assert json.loads((half.checkpoints / "step_00000004" / "COMPLETE").read_text())["step"] == 4, "saved anew"


def test_a_damaged_newer_checkpoint_never_counts_as_one_that_stays(half):
    """Step 4 is cut; from 2 on every step is saved and one is kept: 3 must not go because 4 has a marker."""
    text = half.config.read_text().replace("every_steps: 2", "every_steps: 1").replace("keep_last: 2", "keep_last: 1")
    half.config.write_text(text.replace("duration: 4 steps", "duration: 3 steps"))
    cut(half.checkpoints / "step_00000004")
    codes, said = train(half)
    assert codes == [0] and "continuing from step_00000002" in said, said
    assert sorted(p.name for p in half.checkpoints.iterdir()) == ["step_00000003", "step_00000004"]


def test_a_flipped_bit_is_found(half):
    shutil.rmtree(half.checkpoints / "step_00000002")
    largest = max((half.checkpoints / "step_00000004").rglob("*.pt"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    codes, said = train(half)
    assert codes == [1] and "no usable checkpoint" in said and "hash differs" in said


def test_nothing_usable_is_an_error_and_nothing_is_lost(half):
    for folder in half.checkpoints.iterdir():
        cut(folder)
    sizes = {p: p.stat().st_size for p in half.checkpoints.rglob("*") if p.is_file()}
    codes, said = train(half)
    assert codes == [1] and "move the folder away to start from step 0" in said
    assert {p: p.stat().st_size for p in half.checkpoints.rglob("*") if p.is_file()} == sizes
    assert read_json(half.failure)["error"] == "CheckpointError" and not half.lock.exists()


@pytest.mark.parametrize(("setting", "said"), [
    ("train.zero_stage=2", "was saved with train.zero_stage 0, this job has 2"),
    ("train.precision=bf16", "was saved with train.precision fp32, this job has bf16"),
])
def test_what_a_checkpoint_cannot_continue_as_is_refused_with_what_it_can(half, setting, said):
    key, value = setting.removeprefix("train.").split("=")
    half.config.write_text(re.sub(rf"{key}: \S+", f"{key}: {value}", half.config.read_text()))
    codes, printed = train(half)
    assert codes == [1] and said in printed and "--set train." in printed


def test_a_second_job_leaves_with_exit_2(half):
    write_json(half.lock, {"schema": 1, "job_id": "77", "host": "elsewhere", "pid": 1, "time": time.time()})
    codes, said = train(half, world_size=2)
    assert codes == [2, 2] and "is being written by job 77" in said
    assert read_json(half.lock)["job_id"] == "77" and not half.result.exists() and not half.failure.exists()


@pytest.fixture
def one_bad(manifest, tmp_path):
    """The manifest with a first row whose file became something else since."""
    rows = manifest.read_text().splitlines()
    secret = tmp_path / "secret-child.mp4"
    secret.write_bytes(b"no video")
    own = tmp_path / "own.csv"
    own.write_text("\n".join([rows[0], ",".join([str(secret), *rows[1].split(",")[1:]]), *rows[2:]]) + "\n")
    summary = json.loads(manifest.with_suffix(".json").read_text())
    own.with_suffix(".json").write_text(json.dumps({**summary, "csv_bytes": own.stat().st_size,
                                                    "csv_sha256": hashlib.sha256(own.read_bytes()).hexdigest()}))
    return own


def test_an_unreadable_video_is_replaced_and_listed_by_row_not_by_name(one_bad, tmp_path):
    run = make_run(tmp_path / "run", one_bad, "train.zero_stage=0")
    codes, said = train(run)
    assert codes == [0], said
    assert "row 1 of the manifest cannot be read" in said and "stands in for it" in said
    assert [m["substituted"] for m in read_metrics(run)] == [2, 2, 2, 2], "4 videos a step, one epoch, 2 repeats each"
    listed = read_quarantine(run)
    assert [(step, s.epoch, s.row, s.clips) for step, s in listed] == [(step, step - 1, 0, 2) for step in (1, 2, 3, 4)]
    assert all(s.substitute in (1, 2, 3) for _, s in listed)
    assert not any("secret-child" in text for text in (said, run.quarantine.read_text(), run.metrics.read_text()))

    ranks = make_run(tmp_path / "ranks", one_bad, "train.zero_stage=0", "data.workers=1", "train.micro_batch=1")
    codes, said = train(ranks, world_size=2)
    assert codes == [0, 0], said
    assert ranks.quarantine.read_text() == run.quarantine.read_text(), "repeats in two micro-batches are one line"
    assert [m["substituted"] for m in read_metrics(ranks)] == [2, 2, 2, 2]
    np.testing.assert_allclose(losses(ranks), losses(run), rtol=1e-5)


def test_resume_truncates_the_quarantine_and_gives_the_same_run(one_bad, tmp_path):
    whole = make_run(tmp_path / "whole", one_bad, "train.zero_stage=0")
    assert train(whole)[0] == [0]
    cut = make_run(tmp_path / "cut", one_bad, "train.zero_stage=0")
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    cut.metrics.write_text(whole.metrics.read_text())
    cut.quarantine.write_text(whole.quarantine.read_text() + "3,2,")
    codes, said = train(cut)
    assert codes == [0] and "row 1 of the manifest" not in said, "it was known from the start"
    assert cut.quarantine.read_text() == whole.quarantine.read_text() and untimed(cut) == untimed(whole)


def test_too_many_unreadable_videos_stop_every_rank(one_bad, tmp_path):
    run = make_run(tmp_path / "run", one_bad, "data.max_bad_pct=0.2")
    codes, said = train(run, world_size=2)
    assert codes == [2, 2] and said.count("QuarantineError: 3 videos could not be read") >= 2, said
    assert "--set data.max_bad_pct" in read_json(run.failure)["message"] and len(read_quarantine(run)) == 3
    assert "secret-child" not in said and "secret-child" not in run.failure.read_text()


@pytest.mark.slow
def test_a_run_goes_on_at_another_size(manifest, tmp_path):
    first = make_run(tmp_path / "first", manifest)
    codes, said = train(first)
    assert codes == [0], said
    settings = [f"train.init={first.weights}", "model.img_size=64", "model.num_frames=8", "model.pred_t_dim=8"]
    refused = make_run(tmp_path / "refused", manifest, *settings)
    codes, said = train(refused)
    assert codes == [2] and "pass resize_positions=True" in said
    larger = make_run(tmp_path / "larger", manifest, *settings, "train.resize_positions=true")
    codes, said = train(larger)
    assert codes == [0] and "decoder_pos_embed_temporal 2 -> 4 (linear)" in said, said
    scratch = make_run(tmp_path / "scratch", manifest, *settings[1:])
    assert train(scratch)[0] == [0]
    assert read_metrics(larger)[0]["loss"] != read_metrics(scratch)[0]["loss"]


@pytest.mark.parametrize(("settings", "said"), [
    (["train.phases=[{duration: 1 step, lr: 1.0e30}, {duration: 2 steps, lr: 1.0e30}]"], "NonFiniteError"),
    (["train.precision=fp16", "train.zero_stage=1"], "fp16 needs a GPU"),
    (["train.micro_batch=auto"], "measures the memory of a GPU"),
    (["train.init=/no/such.safetensors"], "/no/such.safetensors does not exist"),
    (["data.manifest=/no/such.csv"], "make it with: python jobs/prepare.py manifest"),
    (["train.device=cuda"], "the device is cuda but torch"),
])
def test_runs_that_cannot_go_on_say_why(manifest, tmp_path, settings, said):
    run = make_run(tmp_path / "run", manifest, *settings)
    codes, printed = train(run)
    assert codes[0] in (1, 2) and said in printed and not run.result.exists()
    assert said in json.dumps(read_json(run.failure))
