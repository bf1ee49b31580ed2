"""Cells that finetune, on real clips: what they learn, what they leave, how they choose a step and survive a stop."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from sklearn.metrics import accuracy_score

from tests.support.interruptions import untimed
from tests.support.labelled import write_labelled
from tests.support.launching import cli
from tests.support.runs import finish, make_cell, make_labelled, start, train
from vidmae.footage.manifest import ManifestError, content_hash, read_all
from vidmae.labels.cell_data import read_cell_data
from vidmae.labels.shots import Shots, ShotsError, hold_out
from vidmae.runs.metrics import read_metrics
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import read_json
from vidmae.runs.selection import best, enough
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, build, load, parse_set


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> tuple[Path, Path]:
    return make_labelled(tmp_path_factory.mktemp("finetune") / "clips", train=4, val=2)


def cell(run, **kwargs):
    return train(run, program="vidmae.train.cell", **kwargs)


@pytest.fixture(scope="module")
def finetuned(manifests, tmp_path_factory):
    """A cell that kept its weights, from scratch, for 16 steps."""
    run = make_cell(tmp_path_factory.mktemp("runs") / "scratch-aaaaaaaa", manifests, "keep_weights=true", "train.layer_decay=1",
                    "train.phases=[{duration: 24 steps, lr: 2.0e-3}]")
    codes, out = cell(run)
    assert codes == [0], out
    return run


def test_it_learns_and_leaves_what_the_contract_says(finetuned):
    result, found = read_json(finetuned.result), Predictions.read(finetuned.predictions)
    assert result["kind"] == "fewshot" and result["select"] == "last" and result["views"] == "center"
    assert (result["steps"], result["selected_step"], result["train_clips"], result["clips"]) == (24, 24, 12, 6)
    assert result["top1_pct"] == 100 * accuracy_score(found.label, found.top5[:, 0]) > 60, "three classes, chance is 33"
    assert result["top1_ci_pct"][0] <= result["top1_pct"] <= result["top1_ci_pct"][1]
    assert [m["step"] for m in read_metrics(finetuned)] == list(range(1, 25))
    assert not finetuned.checkpoints.exists() and not finetuned.looks.exists() and finetuned.weights.exists()
    assert all("bikes" not in p.read_text() for p in finetuned.path.glob("*.json*"))


@pytest.mark.parametrize("method", ["knn", "linear", "attentive"])
def test_probes_share_what_was_extracted(finetuned, manifests, tmp_path_factory, method):
    """One folder of features for all of them; frozen features of random weights tell real clips apart, too."""
    folder = tmp_path_factory.getbasetemp() / "probes"
    run = make_cell(folder / f"{method}-99999999", manifests, f"method={method}", f"probe.features={folder / 'features'}",
                    "probe.token_grid=[2,2,2]", f"train.init={finetuned.weights}", "train.init_name=start", "probe.neighbors=3",
                    f"train.init_content={content_hash(finetuned.weights)}")
    codes, out = cell(run)
    assert codes == [0], out
    result, found = read_json(run.result), Predictions.read(run.predictions)
    assert result["cell"]["method"] == method and result["steps"] == (20 if method == "attentive" else None), result
    assert result["top1_pct"] == 100 * accuracy_score(found.label, found.top5[:, 0]) > 60
    assert ("tensors loaded" in out) == (method != "linear"), "linear finds the features of knn, attentive needs tokens"


def test_a_done_cell_ends_without_torch(finetuned, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('a done cell needs no torch')")
    codes, out = cell(finetuned, env={"PYTHONPATH": str(tmp_path)}, timeout_s=20)
    assert codes == [0] and "this cell is done" in out


def test_a_file_of_a_cell_is_tested_alike_on_its_own(finetuned, manifests, tmp_path):
    """Another program, sizes from the tensors, labels from the manifest: the same predictions to the last bit."""
    args = ["--data", str(manifests[1]), "--out", str(tmp_path / "out"), *(word for item in (
        "data.sampling_rate=2", "data.workers=0", "data.read_limit_s=0", "precision=fp32", "device=cpu") for word in ("--set", item))]
    done = cli("evaluate.py", "--weights", str(finetuned.weights), *args, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/predictions.npz").read_bytes() == finetuned.predictions.read_bytes()
    result, cell_result = json.loads(done.stdout), read_json(finetuned.result)
    assert all(result[key] == cell_result[key] for key in ("top1_pct", "top5_ci_pct", "clips", "classes", "views"))
    state = {name: t for name, t in safetensors.numpy.load_file(finetuned.weights).items() if not name.startswith("head.")}
    safetensors.numpy.save_file(state, tmp_path / "headless.safetensors")
    for file, message in (("headless.safetensors", "has no head"), ("none.pth", "does not exist")):
        refused = cli("evaluate.py", "--weights", file, *args[:-2], "--out", str(tmp_path / "no"), cwd=tmp_path)
        assert refused.returncode == 2 and message in refused.stderr and not refused.stdout, refused.stderr


@pytest.mark.slow
def test_a_convolutional_net_learns_and_is_tested_alike_on_its_own(manifests, tmp_path):
    how = ["keep_weights=true", "model.name=vit_nano_patch8", "model.net=conv", "model.pool=mean", "train.layer_decay=0.5",
           "train.zero_stage=2", "model.dropout=0"]
    run = make_cell(tmp_path / "conv-eeeeeeee", manifests, *how, "train.phases=[{duration: 40 steps, lr: 2.0e-3}]")
    codes, out = cell(run)
    assert codes == [0] and "train.layer_decay 0.5 is for transformers" in out, out
    found = Predictions.read(run.predictions)
    assert read_json(run.result)["top1_pct"] == 100 * accuracy_score(found.label, found.top5[:, 0]) > 60, "three classes, chance is 33"
    args = ["--data", str(manifests[1]), "--out", str(tmp_path / "out"), *(word for item in (
        "data.sampling_rate=2", "data.workers=0", "data.read_limit_s=0", "precision=fp32", "device=cpu") for word in ("--set", item))]
    done = cli("evaluate.py", "--weights", str(run.weights), *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/predictions.npz").read_bytes() == run.predictions.read_bytes()
    whole, two = (make_cell(tmp_path / f"{name}-dddddddd", manifests, *how, "model.drop_path=0") for name in ("whole", "two"))
    assert cell(whole)[0] == [0] and cell(two, world_size=2)[0] == [0, 0]
    assert [m["loss"] for m in read_metrics(two)] == pytest.approx([m["loss"] for m in read_metrics(whole)], rel=1e-4)
    bf16 = make_cell(tmp_path / "bf16-dddddddd", manifests, *how, "train.precision=bf16", "model.activation_checkpointing=true",
                     "evaluate.views=2x1", "select.rule=val-best", "select.every=3 steps")
    codes, out = cell(bf16)
    assert codes == [0], out
    frozen = make_cell(tmp_path / "frozen-dddddddd", manifests, *how, "method=linear", f"probe.features={tmp_path / 'features'}")
    codes, out = cell(frozen)
    assert codes == [0] and read_json(frozen.result)["top1_pct"] > 40, out


def test_each_layer_learns_at_its_own_rate(finetuned, manifests, tmp_path):
    """AdamW's first step moves each number that has a gradient by its learning rate, whatever the gradient."""
    first, lr, decay = safetensors.numpy.load_file(finetuned.weights), 1e-3, 0.5
    run = make_cell(tmp_path / "start-bbbbbbbb", manifests, "keep_weights=true", f"train.layer_decay={decay}", "train.clip_grad=0",
                    f"train.phases=[{{duration: 1 steps, lr: {lr}}}]", f"train.init={finetuned.weights}", "train.init_name=start",
                    f"train.init_content={content_hash(finetuned.weights)}")
    codes, out = cell(run)
    assert codes == [0], out
    assert "start: 42 tensors loaded" in out or re.search(r"start: \d+ tensors loaded", out), out
    after = safetensors.numpy.load_file(run.weights)
    rates = {name: np.median(np.abs(after[name] - first[name])) for name in first if name.endswith(".bias")}
    for layer, name in ((0, "patch_embed.proj.bias"), (1, "blocks.0.mlp.fc2.bias"), (3, "blocks.2.mlp.fc2.bias"), (4, "norm.bias")):
        assert rates[name] == pytest.approx(lr * decay ** (4 - layer), rel=0.02), name
    assert not np.array_equal(after["head.weight"], first["head.weight"]), "the head of a start is new"


def test_a_stopped_cell_ends_as_if_it_had_not_been(manifests, tmp_path):
    """Two ranks, ZeRO-2, dropout and drop path on; looks at held-out clips; stopped by a signal in the middle."""
    settings = ["select.rule=holdout", "select.every=2 steps", "select.holdout=0.25", "train.zero_stage=2", "model.dropout=0.3",
                "train.phases=[{duration: 16 steps, lr: 1.0e-3}]", "log.every_s=0.001"]
    whole, stopped = (make_cell(tmp_path / name, manifests, *settings) for name in ("whole-cccccccc", "stopped-cccccccc"))
    codes, out = cell(whole, world_size=2)
    assert codes == [0, 0], out
    ranks = start(stopped, world_size=2, program="vidmae.train.cell")
    while not stopped.metrics.exists() or len(read_metrics(stopped)) < 3:
        assert all(p.poll() is None for p in ranks)
        time.sleep(0.05)
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
    codes, out = finish(ranks)
    assert codes == [75, 75] and not stopped.result.exists(), out
    codes, out = cell(stopped, world_size=2)
    assert codes == [0, 0] and "continuing from step_" in out, out
    assert untimed(stopped) == untimed(whole)
    assert stopped.evaluations.read_text() == whole.evaluations.read_text()
    assert stopped.predictions.read_bytes() == whole.predictions.read_bytes()
    looks = [json.loads(line) for line in whole.evaluations.read_text().splitlines()]
    assert [look["step"] for look in looks] == list(range(2, 17, 2)) and {look["on"] for look in looks} == {"holdout"}
    result = read_json(whole.result)
    assert result["train_clips"] == 9 and result["selected_step"] == best(looks)["step"]


def test_val_best_tests_the_step_that_was_best_on_the_validation_set(manifests, tmp_path):
    run = make_cell(tmp_path / "best-dddddddd", manifests, "select.rule=val-best", "select.every=1 steps", "select.patience=2",
                    "train.phases=[{duration: 12 steps, lr: 3.0e-3}]", "data.mixup=0.8", "data.cutmix=1.0", "data.rand_augment=1")
    codes, out = cell(run)
    assert codes == [0], out
    looks = [json.loads(line) for line in run.evaluations.read_text().splitlines()]
    chosen, result = best(looks), read_json(run.result)
    assert {look["on"] for look in looks} == {"val"} and result["select"] == "val-best"
    assert (result["selected_step"], result["top1_pct"]) == (chosen["step"], chosen["top1_pct"])
    assert result["steps"] == min(12, chosen["step"] + 2) == len(looks)
    assert not run.weights.exists() and not run.looks.exists()


@pytest.mark.parametrize(("setting", "message"), [
    ("train.init_content=0123456789abcdef", "was made for 0123456789abcdef"),
    ("model.name=vit_tiny_patch16", "of 40 encoder tensors fit|encoder tensors fit"),
    ("model.img_size=48", "another image size"),
])
def test_weights_that_do_not_fit_are_refused(finetuned, manifests, tmp_path, setting, message):
    from vidmae.train.build import build_classifier_for

    run = make_cell(tmp_path / "no-eeeeeeee", manifests, f"train.init={finetuned.weights}", setting)
    with pytest.raises(ValueError, match=message):
        build_classifier_for(load(FinetuneConfig, run.config), 3)


@pytest.mark.slow
@pytest.mark.parametrize(("positions", "method"), [("fixed", "finetune"), ("rotary", "finetune"), ("rotary", "attentive")])
def test_models_of_other_families_finetune_and_probe(manifests, tmp_path, positions, method):
    """From a folder as transformers writes it; what a cell leaves is tested alike on its own."""
    from tests.vidmae.weights import families

    make = {"fixed": families.videomae, "rotary": families.vjepa2}[positions]
    make("nano", frames=4, side=32, patch=16).save_pretrained(tmp_path / "theirs")
    start_from = tmp_path / "theirs/model.safetensors"
    run = make_cell(tmp_path / "cell-ffffffff", manifests, f"model.positions={positions}", "model.pool=mean", "keep_weights=true",
                    f"method={method}", f"train.init={start_from}", f"train.init_content={content_hash(start_from)}",
                    "train.layer_decay=1", f"probe.features={tmp_path / 'features'}", "probe.token_grid=[2,2,2]",
                    "train.phases=[{duration: 24 steps, lr: 1.0e-3}]")
    codes, out = cell(run)
    assert codes == [0] and "tensors loaded from the layout of" in out, out
    assert read_json(run.result)["top1_pct"] > 40, "three classes, chance is 33"
    if method == "finetune":
        settings = ("data.sampling_rate=2", "data.workers=0", "data.read_limit_s=0", "precision=fp32", "device=cpu")
        done = cli("evaluate.py", "--weights", str(run.weights), "--data", str(manifests[1]), "--out", str(tmp_path / "out"),
                   *(word for item in settings for word in ("--set", item)), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out/predictions.npz").read_bytes() == run.predictions.read_bytes()


def test_holding_out_keeps_something_to_learn_from():
    subset = Shots(4, 0, "", {"a": ["1", "2", "3", "4"], "b": ["5", "6"]})
    learn, held = hold_out(subset, 0.25)
    assert (learn.clips, held.clips) == ({"a": ["1", "2", "3"], "b": ["5"]}, {"a": ["4"], "b": ["6"]})
    with pytest.raises(ShotsError, match="1 of 1 classes have fewer than 2 clips"):
        hold_out(Shots(1, 0, "", {"a": ["1"]}), 0.2)


def test_a_subset_is_what_is_learned_from(manifests, tmp_path):
    from vidmae.labels.shots import draw_shots, write_shots
    from vidmae.labels.splits import read_labelled

    (subset,) = draw_shots(read_labelled(manifests[0]), [2], 7)
    write_shots(tmp_path / "two.json", subset)
    run = make_cell(tmp_path / "two-ffffffff", manifests, f"data.subset={tmp_path / 'two.json'}", "data.shots=2")
    data = read_cell_data(load(FinetuneConfig, run.config))
    assert sorted(f"{c:016x}" for c in data.train.content.tolist()) == sorted(c for clips in subset.clips.values() for c in clips)
    assert np.bincount(data.train.class_index).tolist() == [2, 2, 2] and len(data.val) == 6 and len(data.held_out) == 0


@pytest.mark.parametrize("number", [0, 1])
def test_clips_that_are_gone_or_others_now_are_said_before_training(number, tmp_path):
    made = make_labelled(tmp_path / "clips", train=2, val=2)
    rows = read_all(made[number])[1]
    Path(rows[2].path).unlink()
    with Path(rows[4].path).open("ab") as f:
        f.write(b"more")
    run = make_cell(tmp_path / "cell-aaaaaaaa", made)
    codes, out = cell(run)
    assert codes == [2] and "training on" not in out
    said = read_json(run.failure)["message"]
    assert re.search(f"2 of 6 clips of {made[number]} are not there any more, or are other files now: rows 3, 5; .*prepare", said)
    assert Path(rows[2].path).name not in said + out


def test_one_class_is_nothing_to_learn(tmp_path):
    run = make_cell(tmp_path / "cell-aaaaaaaa", (write_labelled(tmp_path, classes=("dog",)), tmp_path / "toys-val.csv"))
    with pytest.raises(ManifestError, match=r"all 12 videos of .* have the label 'dog'.*2 classes or more"):
        read_cell_data(load(FinetuneConfig, run.config))


def test_selection_by_hand():
    looks = [{"step": s, "top1_pct": a} for s, a in ((2, 10.0), (4, 30.0), (6, 30.0), (8, 20.0))]
    assert best(looks)["step"] == 4 and best([]) is None
    assert [enough(looks, patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]


@pytest.mark.parametrize("setting", ["select.patience=3", "select.rule=best", "evaluate.views=3x2", "data.mixup=-1",
                                     "train.layer_decay=0", "select.holdout=1"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=re.escape(setting.split("=")[0])):
        build(FinetuneConfig, parse_set([setting]))


def test_mixing_blends_pixels_and_labels_by_the_same_share():
    from vidmae.clips.augment import Augment
    from vidmae.settings.finetune_config import LabelledConfig

    clips = torch.tensor([0, 60, 120, 240], dtype=torch.uint8).view(4, 1, 1, 1, 1).expand(4, 2, 8, 8, 3).contiguous()
    values = clips[:, 0, 0, 0, 0].double() / 255
    for mix in ("mixup", "cutmix"):
        torch.manual_seed(0)
        mixed, targets = Augment(LabelledConfig(**{mix: 1.0}), 4, mean=0.0, std=1.0)(clips, torch.arange(4))
        assert mixed.shape == (4, 3, 2, 8, 8)
        # every clip has one grey value and a class of its own, so its mean says how its labels must be blended
        torch.testing.assert_close(mixed.double().mean((1, 2, 3, 4)), targets.double() @ values, atol=1e-5, rtol=0)
        assert not torch.equal(targets, torch.eye(4)) and torch.equal(mixed[:, :, 0], mixed[:, :, 1])


def test_rand_augment_does_the_same_to_every_frame():
    from vidmae.clips.augment import Augment
    from vidmae.settings.finetune_config import LabelledConfig

    clips = torch.randint(256, (3, 1, 16, 16, 3), dtype=torch.uint8).expand(3, 4, 16, 16, 3)
    augment = Augment(LabelledConfig(rand_augment=3, rand_magnitude=20), 2, mean=0.0, std=1.0)
    torch.manual_seed(1)
    once, _ = augment(clips, torch.zeros(3, dtype=torch.long))
    torch.manual_seed(1)
    again, targets = augment(clips, torch.zeros(3, dtype=torch.long))
    assert torch.equal(once, again) and torch.equal(targets, torch.tensor([[1.0, 0.0]]).expand(3, 2))
    assert torch.equal(once, once[:, :, :1].expand_as(once))
    assert not torch.allclose(once[:, :, 0], clips[:, 0].permute(0, 3, 1, 2).float() / 255)
