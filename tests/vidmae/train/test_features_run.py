"""Pretraining on features through the training program: the teacher, its checkpoints, what the run exports and who opens it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jobs import interpolate
from tests.support.facilities import need
from tests.support.interruptions import differences, weights
from tests.support.runs import make_manifest, make_run, train
from vidmae.model.trained import load_trained
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import load_state, read_metadata
from vidmae.ranks.engine import NonFiniteError
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, build, load, parse_set
from vidmae.train.build import build_model
from vidmae.train.pretrain import Pretrainer
from vidmae.train.trainer import BadWindowError

FEATURES = ["model.target=features", "model.teacher_momentum=[0.5,0.9]", "checkpoint.keep_last=9"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(manifest, tmp_path_factory):
    """A run with a checkpoint after each of its four steps."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run", manifest, *FEATURES, "checkpoint.every_steps=1")
    codes, said = train(run)
    assert codes == [0] and "of features, which spread" in said, said
    return run


def averaged(run, steps=4):
    """The average of the weights of before and of every checkpoint, in closed form, float64."""
    momenta = [0.5 + (0.9 - 0.5) * step / steps for step in range(steps)]
    states = [build_model(load(PretrainConfig, run.config)).state_dict()]
    states += [load_state(run.checkpoints / f"step_{step:08d}") for step in range(1, steps + 1)]
    shares = [float(np.prod(momenta))] + [(1 - momenta[i]) * float(np.prod(momenta[i + 1:])) for i in range(steps)]
    return {name: sum(share * state[name].double().numpy() for share, state in zip(shares, states, strict=True)) for name in states[0]}


def test_the_exported_weights_are_the_average_of_the_student(whole):
    """Each update moves the teacher once; the run says whose weights it exports."""
    exported, student = weights(whole), load_state(whole.checkpoints / "step_00000004")
    for name, value in averaged(whole).items():
        np.testing.assert_allclose(exported[name], value, atol=5e-7, err_msg=name)
    assert any(np.abs(exported[name] - student[name].numpy()).max() > 1e-4 for name in exported)
    assert read_metadata(whole.weights)["weights_of"] == read_json(whole.result)["weights_of"] == "teacher"


def test_metrics_show_the_loss_and_the_spread_of_features(whole):
    lines = read_metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and all(0 < line["loss"] < 2 for line in lines)
    assert all(0.05 < line["target_std"] <= 1 and 0 < line["target_std_between"] < 1.5 for line in lines)


def test_a_run_that_was_stopped_ends_with_the_same_bits(whole, manifest, tmp_path):
    cut = make_run(tmp_path / "cut", manifest, *FEATURES, "checkpoint.every_steps=1")
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    (cut.metrics).write_text("".join(f"{line}\n" for line in whole.metrics.read_text().splitlines()[:3]))
    codes, said = train(cut)
    assert codes == [0] and "continuing from step_00000002" in said, said
    assert differences(cut, whole) == []


@pytest.mark.parametrize(("saved", "stage", "ranks"), [
    (2, 3, 2), pytest.param(2, 2, 4, marks=pytest.mark.slow), pytest.param(2, 1, 2, marks=pytest.mark.slow),
    pytest.param(0, 0, 2, marks=pytest.mark.slow)])
def test_other_ranks_and_stages_continue_with_the_teacher(whole, manifest, tmp_path, saved, stage, ranks):
    """What follows is the whole run's up to rounding; the checkpoint holds every rank's part of the teacher."""
    start = whole
    if saved != 2:
        start = make_run(tmp_path / "start", manifest, *FEATURES, f"train.zero_stage={saved}")
        assert train(start)[0] == [0]
    run = make_run(tmp_path / "run", manifest, *FEATURES, "checkpoint.every_steps=9", f"train.zero_stage={stage}")
    shutil.copytree(start.checkpoints / "step_00000002", run.checkpoints / "step_00000002")
    codes, said = train(run, world_size=ranks)
    assert codes == [0] * ranks and "continuing from step_00000002" in said, said
    np.testing.assert_allclose([line["loss"] for line in read_metrics(run)], [line["loss"] for line in read_metrics(start)],
                               rtol=1e-4)
    ours, theirs = weights(run), weights(start)
    for name, value in theirs.items():
        if not name.endswith("attn.k.bias"):
            np.testing.assert_allclose(ours[name], value, atol=2e-4, err_msg=name)
    kept = sorted(path.name for path in (run.checkpoints / "step_00000004/state").glob("average_*"))
    assert kept == [f"average_{rank:05d}.pt" for rank in range(ranks if stage else 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(0, "bf16"), (1, "bf16"), (3, "bf16")])
def test_sixteen_bits_have_a_float32_teacher(whole, manifest, tmp_path, stage, precision):
    run = make_run(tmp_path / "run", manifest, *FEATURES, f"train.zero_stage={stage}", f"train.precision={precision}")
    codes, said = train(run, world_size=2)
    assert codes == [0, 0], said
    np.testing.assert_allclose([line["loss"] for line in read_metrics(run)], [line["loss"] for line in read_metrics(whole)], rtol=3e-2)
    found = torch.from_numpy(weights(run)["blocks.0.mlp.fc1.weight"])
    assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(whole, manifest, tmp_path):
    need("compiler")
    run = make_run(tmp_path / "run", manifest, *FEATURES, "train.compile=true")
    codes, said = train(run, timeout_s=600)
    assert codes == [0] and "the first step compiles" in said, said
    np.testing.assert_allclose([line["loss"] for line in read_metrics(run)], [line["loss"] for line in read_metrics(whole)], rtol=1e-4)


def test_who_opens_the_weights_and_who_cannot(whole, tmp_path):
    """Cells, embeddings and maps of attention take the encoder; what fills in pixels says why it cannot."""
    opened = load_trained_encoder(whole.path)
    assert opened.pretrained and opened.model.shape.name == "vit_nano_patch16"
    np.testing.assert_array_equal(opened.model.state_dict()["blocks.2.mlp.fc2.weight"], weights(whole)["blocks.2.mlp.fc2.weight"])
    for path in (whole.path, whole.weights):
        with pytest.raises(ValueError, match=r"predicts features \(model.target features\) and has no pixel decoder"):
            load_trained(path)
    args = interpolate.make_parser().parse_args(["--weights", str(whole.weights), "--videos", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(ConfigError, match=r"no pixel decoder, so it cannot fill in; allowed: a model of model\.target pixels"):
        interpolate.resolve(args, {"videos": tmp_path}, tmp_path / "out")
    assert json.loads(read_metadata(whole.weights)["config"])["target"] == "features"


class Counted(Pretrainer):
    """A trainer whose engine skips the updates that it is told to; counts what the teacher hears of."""

    def __init__(self, engine):
        self.engine, self.heard, self.skipped, self.spreads = engine, [], (), []
        self.ranks = SimpleNamespace(device=torch.device("cpu"), rank=0, world_size=1, joined=list)
        self.config = build(PretrainConfig, parse_set(["model.target=features"]))[0]
        schedule = SimpleNamespace(phase_at=lambda _: 0, start_of=lambda _: 0, lr_at=lambda _: 0.1)
        self.plan = SimpleNamespace(schedule=schedule, grad_accum=1, steps_per_epoch=1)
        batch = SimpleNamespace(rows=torch.zeros(1), substituted=[], rechecked=[], archive_bytes=[0, 0])
        self.ahead = SimpleNamespace(next=lambda: (batch, 0.0), fetch=lambda: None)
        self.pace = SimpleNamespace(waited=lambda _: None, to_sum=lambda _: [], step_done=lambda _: None, compare=lambda _: {})
        self.saver, self.peak_clips_per_s, self.mixture = SimpleNamespace(busy=0.0), None, None

    def inputs(self, *_):
        return ()

    def updated(self, step):
        self.heard.append(step)


class Skipping:
    """As fp16's loss scaler: update 1 is skipped, update 3 is not finite."""

    skipped_steps, losses, at = 0, torch.zeros(1), -1

    def set_lr(self, _):
        self.at += 1

    def backward(self):
        pass

    def update(self, *, extra, **_):
        if self.at == 3:
            raise NonFiniteError("the loss is nan")
        self.skipped_steps += self.at == 1
        return 0.5, 1.0, [0.0] * len(extra)


def test_an_update_that_is_skipped_does_not_move_the_teacher():
    trainer = Counted(Skipping())
    assert [trainer.train_step(step)[0]["skipped"] for step in range(3)] == [0, 1, 1]
    with pytest.raises(BadWindowError):
        trainer.train_step(3)
    assert trainer.heard == [0, 2]
