"""Saves that fail, room on disk, and other numbers of ranks: real deepspeed over gloo, real full disks."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.facilities import need
from tests.support.ranks import run_ranks
from tests.support.runs import make_manifest, make_run, train
from vidmae.model.weights import load_state
from vidmae.ranks.saving.retention import most_at_once, superseded, why_no_room
from vidmae.runs.cost import parameters
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.keeping_config import CheckpointConfig
from vidmae.settings.layers import load


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of so many KiB as a run's checkpoints; its run folder."""
    need("tmpfs")
    mounted = []

    def mount(kib: int) -> Path:
        point = tmp_path / f"run{len(mounted)}" / "checkpoints"
        point.mkdir(parents=True, mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "tmpfs", point], check=True)
        mounted.append(point)
        return point.parent

    yield mount
    for point in mounted:
        subprocess.run(["umount", point], check=True)


def saver(run: Path, stage: int, fault: str, *, background: bool = True) -> dict:
    """What both ranks of tests/support/programs/saver.py saw."""
    first, second = run_ranks("tests.support.programs.saver", str(run), str(stage), fault, json.dumps(background), world_size=2)
    for seen in (first, second):
        del seen["said"]  # has seconds that each rank measures by itself
    assert first == second
    return first


@pytest.mark.parametrize(("stage", "background"), [(0, True), (2, True), (2, False)])
def test_a_save_under_way_is_published_at_a_later_step(tmp_path, stage, background):
    seen = saver(tmp_path, stage, "none", background=background)
    assert seen["left"] == ["step_00000001", "step_00000002"] and seen["newest"] == 2 and not seen["error"]
    record = read_json(tmp_path / "checkpoints/step_00000002/COMPLETE")
    assert record["step"] == 2 and 0 < record["save_s"] <= seen["slowest_s"]
    assert all((tmp_path / "checkpoints/step_00000002" / name).stat().st_mode & 0o777 == 0o600 for name in record["files"])


@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_fails_on_one_rank_stops_all_and_leaves_the_one_before(tmp_path, background):
    """The last rank meets a limit on file sizes: a real error in the middle of a write, without root."""
    seen = saver(tmp_path, 2, "limit", background=background)
    assert "the checkpoint of step 2 could not be saved: rank 1: /" in seen["error"]
    assert ".step_00000002.tmp/state/zero_pp_rank_1_mp_rank_00_optim_states.pt: File too large" in seen["error"] and "--retry" in seen["error"]
    assert seen["left"] == ["step_00000001"] and seen["newest"] == 1


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_stops_the_run_and_leaves_the_one_before(small_disk, background):
    seen = saver(small_disk(1024), 2, "full", background=background)
    assert "could not be saved: rank 0" in seen["error"] and "No space left on device" in seen["error"]
    assert seen["left"] == ["step_00000001"] and seen["newest"] == 1


def test_a_disk_too_small_is_refused_before_the_first_step(small_disk, manifest):
    run = make_run(small_disk(4096), manifest, "train.zero_stage=2", "checkpoint.keep_last=1")
    codes, said = train(run, world_size=2)
    assert codes == [1, 1] and "GiB free, the run's checkpoints need" in said and "--runs-dir" in said, said
    assert not read_metrics(run) and read_json(run.failure)["error"] == "CheckpointError"


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(small_disk, manifest, tmp_path):
    if os.geteuid():
        run = make_run(tmp_path / "run", manifest)
        run.checkpoints.mkdir(mode=0o500)
        error = "Permission denied"
    else:
        run = make_run(small_disk(1024), manifest)
        subprocess.run(["mount", "-o", "remount,ro", run.checkpoints], check=True)
        error = "Read-only file system"
    codes, said = train(run)
    assert codes == [1] and f"checkpoints cannot be written to {run.checkpoints}" in said and error in said, said
    assert not read_metrics(run)


@pytest.mark.parametrize(("have", "start", "total", "keep", "most"), [
    ([], 0, 40, {}, 3),               # two that stay and the one being written
    ([], 0, 20, {}, 2),               # a run that ends before there are more
    ([], 0, 15, {}, 2),               # the last step counts, wherever it lies
    ([10, 20], 20, 40, {}, 3),
    ([10, 20, 30], 30, 40, {}, 4),    # keep_last was larger before
    ([], 0, 40, {"keep_last": 1}, 2),
    ([], 0, 60, {"keep_last": 1, "keep_every": 20}, 4),   # at 60: 20, 40, 50, 60
])
def test_the_worst_moment_on_disk(have, start, total, keep, most):
    assert most_at_once(have, start, total, CheckpointConfig(every_steps=10, **keep)) == most


def test_what_may_go():
    assert superseded([30, 10, 20, 40], CheckpointConfig(every_steps=10, keep_last=2)) == [10, 20]
    assert superseded([10, 20, 30, 40], CheckpointConfig(every_steps=10, keep_last=1, keep_every=20)) == [10, 30]


def test_room_is_told_in_gib_with_the_settings_to_change(tmp_path):
    keep = CheckpointConfig(every_steps=10, keep_last=3)
    assert why_no_room(tmp_path / "new", [], 2**20, 0, 100, keep) is None and list(tmp_path.iterdir()) == [tmp_path / "new"]
    said = why_no_room(tmp_path, [10, 20, 30], 2**60, 30, 100, keep)
    assert "need 1.1e+09 GiB more: 1 of 1.07e+09 GiB (checkpoint.keep_last 3" in said
    assert "checkpoint.keep_last=2" in said and "--runs-dir" in said


@pytest.fixture(scope="module")
def on_four(manifest, tmp_path_factory):
    """Give the whole run of a stage on 4 ranks; made once."""
    runs = {}

    def give(stage: int):
        if stage not in runs:
            runs[stage] = make_run(tmp_path_factory.mktemp("four") / "run", manifest, f"train.zero_stage={stage}")
            codes, said = train(runs[stage], world_size=4)
            assert codes == [0] * 4, said
        return runs[stage]
    return give


@pytest.mark.parametrize(("stage", "ranks"), [
    pytest.param(1, 2, marks=pytest.mark.slow), (2, 2), pytest.param(3, 2, marks=pytest.mark.slow),
    pytest.param(3, 8, marks=pytest.mark.slow)])  # test_engine.py has all of them for a small network
def test_a_run_of_four_ranks_continues_on_another_number(on_four, manifest, tmp_path, stage, ranks):
    """Same losses (so the same clips in the same order and the same batch) and the same weights up to rounding."""
    whole = on_four(stage)
    run = make_run(tmp_path / "run", manifest, f"train.zero_stage={stage}")
    shutil.copytree(whole.checkpoints / "step_00000002", run.checkpoints / "step_00000002")
    codes, said = train(run, world_size=ranks, timeout_s=500)
    assert codes == [0] * ranks, said
    assert f"continuing from step_00000002, saved on 4 ranks with ZeRO {stage}, on {ranks} with ZeRO {stage}" in said
    rest, expected = ([m["loss"] for m in read_metrics(r) if m["step"] > 2] for r in (run, whole))
    np.testing.assert_allclose(rest, expected, rtol=1e-5)
    ours, theirs = load_file(run.weights), load_file(whole.weights)
    for name, value in theirs.items():
        if not name.endswith("attn.k.bias"):  # its gradient is zero but for rounding, which Adam turns into full steps
            np.testing.assert_allclose(ours[name], value, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow), 2,
                                   pytest.param(3, marks=pytest.mark.slow)])
def test_the_shards_of_a_checkpoint_are_read_as_weights(on_four, tmp_path, stage):
    """The checkpoint of the last step holds what the run exports; a folder that lacks a shard is refused."""
    run = on_four(stage)
    folder = run.checkpoints / "step_00000004"
    found, exported = load_state(folder), load_file(run.weights)
    assert found.keys() == exported.keys()
    assert all(np.array_equal(found[name].numpy(), value) for name, value in exported.items())
    if stage:
        shutil.copytree(folder / "state", tmp_path / "state")
        next((tmp_path / "state").glob("*rank_2_*optim*")).unlink()
        with pytest.raises(ValueError, match=r"the shards of ranks \[0, 1, 3\], and the weights are in those of 4 ranks"):
            load_state(tmp_path / "state")


def test_the_size_of_a_checkpoint_is_known_before(on_four):
    run = on_four(2)
    expected = 16 * parameters(load(PretrainConfig, run.config).model.shape())  # float32 weights, their master copy, two averages
    size = sum(f["bytes"] for f in read_json(run.checkpoints / "step_00000004/COMPLETE")["files"].values())
    assert expected < size < 1.02 * expected + 2**18, "the files' own headers come on top"
