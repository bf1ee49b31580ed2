"""The cache of features: what is found again, what is damaged, what is another feature, and what is never stored."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vidmae.evaluate.feature_cache import FeatureStore, feature_spec
from vidmae.settings.finetune_config import ClassifierConfig, FinetuneConfig, LabelledConfig
from vidmae.settings.layers import build, parse_set

BASE = ["method=knn", "model.name=vit_nano_patch16", "model.img_size=32", "model.num_frames=4"]
TOKENS = ["method=attentive", "probe.token_grid=[1, 2, 2]"]


def config(*settings) -> FinetuneConfig:
    return build(FinetuneConfig, parse_set([*BASE, *settings]))[0]


def store(root, *settings, said=None) -> FeatureStore:
    return FeatureStore(root, feature_spec(config(*settings)), (said if said is not None else []).append)


def contents(*numbers) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64) + np.uint64(2**64 - 100)  # too large for a signed number or a float


def vectors(number, shape=(96,)) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((number, *shape)).astype(np.float32)


def test_features_come_back_by_content_in_the_order_asked_for(tmp_path):
    x, here = vectors(5), store(tmp_path)
    assert here.missing(contents(7, 3, 7)).tolist() == [0, 1]
    here.add(contents(1, 2, 3), x[:3])
    here.add(contents(9, 8), x[3:])
    for reader in (here, store(tmp_path)):  # another process would open it anew
        assert reader.missing(contents(9, 5, 2, 4, 5, 1)).tolist() == [1, 3]
        wanted = contents(8, 1, 9, 1, 3)
        assert np.array_equal(reader.read(wanted), x[[4, 0, 3, 0, 2]])
        rows = reader.rows(wanted)
        assert len(rows) == 5 and np.array_equal(rows[np.array([4, 0])], x[[2, 4]])
        assert all(isinstance(shard, np.memmap) for shard in rows._shards)
    with pytest.raises(ValueError, match="lacks the features of 2 of 3 clips"):
        here.rows(contents(1, 50, 51))
    assert {path.stat().st_mode & 0o777 for path in here.folder.iterdir()} == {0o600}
    assert here.folder.stat().st_mode & 0o777 == 0o700


def test_tokens_are_kept_in_16_bits(tmp_path):
    x, here = vectors(3, (4, 96)), store(tmp_path, *TOKENS)
    here.add(contents(1, 2, 3), x)
    back = here.read(contents(3, 1))
    assert back.dtype == np.float32 and np.array_equal(back, x[[2, 0]].astype(np.float16))
    (shard,) = here.folder.glob("*.npy")
    assert shard.stat().st_size < 3 * (4 * 96 * 2 + 8) + 500


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def cut_in_header(path):
    path.write_bytes(path.read_bytes()[:40])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is no array")


@pytest.mark.parametrize("damage", [flipped, cut, cut_in_header, emptied, text])
def test_a_damaged_shard_is_said_and_missing_and_the_others_stay(tmp_path, damage):
    x, said = vectors(4), []
    here = store(tmp_path)
    here.add(contents(1, 2), x[:2])
    (shard,) = here.folder.glob("*.npy")
    here.add(contents(3, 4), x[2:])
    damage(shard)
    again = store(tmp_path, said=said)
    assert again.missing(contents(1, 2, 3, 4)).tolist() == [0, 1]
    assert len(said) == 1 and shard.name in said[0] and "extracted again" in said[0]
    assert np.array_equal(again.read(contents(4, 3)), x[[3, 2]])
    again.add(contents(1, 2), x[:2])
    assert np.array_equal(again.read(contents(1, 2, 3, 4)), x) and len(said) == 1


def test_a_shard_that_is_not_asked_for_is_not_read(tmp_path):
    """A folder holds all data sets; hashing all of them for each small cell would cost minutes."""
    here, said = store(tmp_path), []
    here.add(contents(1), vectors(1))
    (shard,) = here.folder.glob("*.npy")
    here.add(contents(2), vectors(1))
    flipped(shard)
    again = store(tmp_path, said=said)
    again.read(contents(2))
    assert said == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_what_is_not_finite_is_never_stored(tmp_path, value):
    here, x = store(tmp_path, *TOKENS), vectors(3, (4, 96))
    x[1, 2, 3] = value  # 1e6 is infinite in 16 bits
    with pytest.raises(ValueError, match=r"features of 1 of 3 clips .* train\.precision=fp32"):
        here.add(contents(1, 2, 3), x)
    assert list(here.folder.glob("*.npy")) == []


def test_another_spec_is_refused(tmp_path):
    here = store(tmp_path)
    path = here.folder / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sampling_rate": 4}))
    with pytest.raises(ValueError, match="holds other features: sampling_rate differ"):
        store(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        store(tmp_path)


CHANGE_FEATURES = ["model.img_size=48", "model.num_frames=8", "model.t_patch_size=4", "model.pool=mean",
                   "model.temporal_positions=false", "model.name=vit_tiny_patch16", "data.sampling_rate=4", "data.target_fps=25", "data.decoder=pyav",
                   "train.precision=fp32", "seed=1", "method=attentive"]
DO_NOT = ["method=linear", "data.shots=2", "data.name=k700", "data.workers=0", "probe.neighbors=5", "evaluate.batch=2",
          "train.global_batch=64", "model.dropout=0.5", "model.attention=naive",
          "data.crop_area=[0.5, 1]", "probe.token_grid=[2, 1, 1]"]


def test_what_changes_a_feature_has_a_folder_of_its_own():
    grid = "probe.token_grid=[1, 1, 1]"
    plain = feature_spec(config(grid)).folder_name
    assert plain.startswith("scratch-seed0-")
    folders = {feature_spec(config(grid, change)).folder_name for change in CHANGE_FEATURES}
    assert len(folders | {plain}) == len(CHANGE_FEATURES) + 1
    assert {feature_spec(config(grid, change)).folder_name for change in DO_NOT} == {plain}
    tokens = config("method=attentive", grid)
    assert feature_spec(tokens) != feature_spec(config("method=attentive", "probe.token_grid=[1, 2, 1]"))
    assert feature_spec(tokens) == feature_spec(config("method=attentive", grid, "model.pool=mean"))
    init = config("train.init=/x/w.safetensors", "train.init_content=run:0123abcd")
    assert feature_spec(init).folder_name.startswith("run_0123abcd-")
    assert feature_spec(init) == feature_spec(replace(init, seed=1))  # the seed of a cell does not change weights
    with pytest.raises(ValueError, match="init_content is empty"):
        feature_spec(config("train.init=/x/w.safetensors"))


def test_every_setting_of_model_and_data_is_in_one_of_the_two_lists():
    """A new setting that changes what the encoder sees must not share a folder by being forgotten here."""
    known = {change.partition("=")[0] for change in CHANGE_FEATURES + DO_NOT} | {"model.positions", "model.net"}  # the next test, and test_conv_net.py
    training_alone = {f"model.{n}" for n in ("drop_path", "activation_checkpointing")} | {f"data.{n}" for n in (
        "manifest", "val_manifest", "subset", "crop_aspect", "flip_prob", "repeat_aug", "repeat_window", "repeat_near_s", "read_limit_s",
        "read_retries", "max_bad_pct", "recheck_pct", "mixup", "cutmix", "rand_augment", "rand_magnitude",
        "fraction", "stage", "stage_gib", "prepared", "archives")}  # clips that were prepared have contents of their own
    there = {f"model.{n}" for n in ClassifierConfig.__dataclass_fields__} | {
        f"data.{n}" for n in LabelledConfig.__dataclass_fields__}
    assert there - known - training_alone == set()


def test_a_token_grid_larger_than_the_encoders_is_refused():
    with pytest.raises(ValueError, match=r"token_grid \[2, 3, 2\] .* larger than the encoder's grid \[2, 2, 2\]"):
        feature_spec(config("method=attentive", "probe.token_grid=[2, 3, 2]"))
    assert feature_spec(config("probe.token_grid=[2, 3, 2]")).token_grid is None  # of no concern to knn


def test_heads_that_do_not_divide_the_width_are_refused_before_anything_is_extracted():
    own = ["probe.token_grid=[1, 1, 1]", "probe.blocks=2", "probe.heads=7"]
    with pytest.raises(ValueError, match=r"probe.heads is 7, which does not divide the width 96 .* nearest: 6 or 8 \(--set probe.heads=N\)"):
        feature_spec(config("method=attentive", *own))
    assert feature_spec(config("method=knn", *own)) and feature_spec(config("method=attentive", own[0], own[2]))


@pytest.mark.parametrize("method", ["linear", "knn", "attentive"])
def test_probes_have_no_looks_and_one_view(method):
    with pytest.raises(ValueError, match="last with method"):
        config(f"method={method}", "select.rule=holdout")
    with pytest.raises(ValueError, match=f"evaluate.views .* center with method {method}"):
        config(f"method={method}", "evaluate.views=10x3")


def test_encoders_that_are_built_otherwise_have_folders_of_their_own(tmp_path):
    plain = store(tmp_path)
    assert not {"inflated", "positions"} & plain.spec.record.keys(), "folders of earlier versions stay valid"
    others = [store(tmp_path, f"train.inflated={how}") for how in ("centre", "mean")]
    others += [store(tmp_path, "model.pool=mean", *more) for more in ((), ("model.positions=fixed",), ("model.positions=rotary",))]
    assert len({each.folder for each in (plain, *others)}) == 6
