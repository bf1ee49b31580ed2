"""Frozen features of pieces of real clips: those of the model, each extracted once, whatever comes in between."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import started
from tests.support.facilities import demo_clips, need
from tests.support.ranks import free_port
from tests.support.videos import X264, ffmpeg
from vidmae.clips.view_loader import view_loader
from vidmae.clips.views import ViewSpec
from vidmae.evaluate import extract
from vidmae.evaluate.extract import average_tokens, frozen_features
from vidmae.evaluate.feature_cache import FeatureStore, feature_spec
from vidmae.footage.manifest import Check, Manifest, Source
from vidmae.footage.manifest_build import build as build_manifest
from vidmae.labels.shots import draw_shots, write_shots
from vidmae.labels.splits import read_labelled
from vidmae.model.classifier import VideoClassifier
from vidmae.ranks import dist, preempt, waiting
from vidmae.runs.accuracy import topk_pct
from vidmae.runs.cell_record import read_result
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, to_yaml
from vidmae.train.probe_cell import frozen_encoder, probe

CLASSES = ("bigbuckbunny", "bikes", "carphone_pristine")
PIECES = 6  # of each clip, in time: the last two are for validation
BASE = ["model.name=vit_nano_patch16", "model.img_size=32", "model.num_frames=4", "data.sampling_rate=2", "data.workers=0",
        "data.read_limit_s=0", "recovery.start_limit_s=0", "train.precision=fp32", "evaluate.batch=4", "probe.token_grid=[2, 2, 1]", "probe.epochs=2"]


@pytest.fixture(scope="module", autouse=True)
def one_rank():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield dist.init("cpu")
    dist.close()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    """Manifests toys.csv and toys-val.csv of short pieces, labelled by the clip they come from, and a 2-shot subset."""
    need("clips")
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    for clip in (p for p in demo_clips() if p.stem in CLASSES):
        ffmpeg("-i", clip, "-frames:v", str(12 * PIECES), "-vf", "scale=64:48", "-an", *X264, "-g", "12", "-keyint_min", "12",
               "-f", "segment", "-segment_frames", ",".join(str(12 * i) for i in range(1, PIECES)), folder / f"{clip.stem}-%d.mp4")
    for name, pieces in (("toys", range(PIECES - 2)), ("toys-val", range(PIECES - 2, PIECES))):
        sources = [Source(str(folder / f"{label}-{i}.mp4"), label) for label in CLASSES for i in pieces]
        build_manifest(sources, folder / f"{name}.csv", Check("auto", False), workers=1, time_limit_s=60,
                       progress=lambda *_: None)
    write_shots(folder / "shots.json", draw_shots(read_labelled(folder / "toys.csv"), [2], 0)[0])
    return folder


def config(footage, features, *settings) -> FinetuneConfig:
    own = ["method=knn", f"data.manifest={footage}/toys.csv", f"data.val_manifest={footage}/toys-val.csv",
           f"data.subset={footage}/shots.json", f"probe.features={features}"]
    return build(FinetuneConfig, parse_set([*BASE, *own, *settings]))[0]


def make_run(path: Path, of: FinetuneConfig) -> RunFolder:
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(of))
    return run


def shards(features: Path) -> list[np.ndarray]:
    return [np.load(path) for path in features.glob("*/*.npy")]


def stored(features: Path) -> dict[int, bytes]:
    """Every feature by content; each must be there once."""
    rows = np.concatenate(shards(features))
    assert len(set(rows["content"].tolist())) == len(rows), "a clip was extracted twice"
    return {int(row["content"]): row["features"].tobytes() for row in rows}


class Ticks(list):
    """Collects signs of life as (state, done, total)."""

    def __call__(self, *what):
        self.append(what)


@pytest.mark.parametrize(("method", "shape"), [("knn", (96,)), ("linear", (96,)), ("attentive", (4, 96))])
def test_a_cell_from_videos_to_predictions(footage, tmp_path, one_rank, method, shape, capsys):
    cell = config(footage, tmp_path / "features", f"method={method}")
    run = make_run(tmp_path / "run", cell)
    assert probe(run, cell, one_rank, 0.0)
    result, written, val = read_json(run.result), Predictions.read(run.predictions), read_labelled(footage / "toys-val.csv")
    assert (result["train_clips"], result["clips"]) == (6, 6)
    assert result["steps"] == (2 if method == "attentive" else None)
    assert np.array_equal(written.content, val.contents) and np.array_equal(written.label, val.class_of)
    assert written.classes.tolist() == list(CLASSES)
    assert topk_pct(written, 1) == result["top1_pct"] and result["eval_s"] > 0
    if method != "attentive":  # two steps are too few for it
        assert topk_pct(written, 1) >= 60  # three very different films, even to random weights; chance 33
    found = shards(tmp_path / "features")
    assert sorted(map(len, found)) == [6, 6] and {s["features"].shape[1:] for s in found} == {shape}
    assert str(footage) not in capsys.readouterr().out  # names of recordings are private
    again = make_run(tmp_path / "again", cell)
    assert probe(again, cell, one_rank, 0.0) and len(shards(tmp_path / "features")) == 2
    assert again.predictions.read_bytes() == run.predictions.read_bytes()


def test_features_are_those_of_the_model_on_the_centre_view(footage, tmp_path, one_rank):
    for method, grid in (("knn", None), ("attentive", (2, 2, 1))):
        cell = config(footage, tmp_path / method, f"method={method}")
        model = frozen_encoder(cell, one_rank).eval()
        assert extracted(cell, one_rank, "toys-val")
        store = FeatureStore(tmp_path / method, feature_spec(cell))
        manifest = Manifest.read(footage / "toys-val.csv")
        views = list(view_loader(manifest, np.arange(6), ViewSpec(4, 2, 30.0, 32), rank=0, world_size=1, batch=6,
                                 workers=0, read_limit_s=0, read_retries=0))
        expected = frozen_features(model, views[0].clips, grid, "fp32")
        with torch.no_grad():
            if grid is None:
                assert np.allclose(expected, model.features(views[0].clips), atol=1e-6)
        found = store.read(manifest.footage[views[0].rows])
        assert np.allclose(found, expected, atol=1e-5 if grid is None else 4e-3)
        assert np.abs(found - found[0]).max() > 0.05  # clips differ by more than that


@pytest.mark.parametrize("out", [(1, 1, 1), (2, 2, 2), (4, 5, 6), (3, 2, 5)])
def test_averaged_tokens_are_those_of_brute_force(out):
    grid, dim = (4, 5, 6), 3
    tokens = torch.randn(2, 4 * 5 * 6, dim, generator=torch.Generator().manual_seed(0))
    found = average_tokens(tokens, grid, out).numpy()
    cells = tokens.numpy().reshape(2, *grid, dim)
    part = [[slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)] for n, m in zip(grid, out, strict=True)]
    expected = [cells[:, t, h, w].mean((1, 2, 3)) for t in part[0] for h in part[1] for w in part[2]]
    assert found.shape == (2, len(expected), dim) and np.allclose(found, np.stack(expected, 1), atol=1e-6)


def extracted(cell, ranks, name, ticks=None, rows=None):
    """Extract clips of the manifest `name` as run_probe does; what `extract` returns."""
    manifest = Manifest.read(Path(cell.data.manifest).with_name(f"{name}.csv"))
    store = FeatureStore(Path(cell.probe.features), feature_spec(cell))
    return extract.extract(lambda: frozen_encoder(cell, ranks), manifest, np.arange(len(manifest)) if rows is None else rows,
                           store, cell, ranks, Ticks() if ticks is None else ticks)


def test_an_interrupted_extraction_goes_on_where_it_was(footage, tmp_path, one_rank, monkeypatch):
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", 4)
    cell, whole = config(footage, tmp_path / "a"), config(footage, tmp_path / "b")

    def pulled(_state, done, _total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extracted(cell, one_rank, "toys", pulled)
    kept = stored(tmp_path / "a")
    assert len(kept) == 8 and not list((tmp_path / "a").glob("*/lock.json"))
    ticks = Ticks()
    assert extracted(cell, one_rank, "toys", ticks)
    assert ticks == [("features", 4, 4)]
    assert extracted(whole, one_rank, "toys")
    assert stored(tmp_path / "a") == stored(tmp_path / "b")


def test_large_features_are_saved_before_there_are_500(footage, tmp_path, one_rank, monkeypatch):
    monkeypatch.setattr(extract, "BYTES_PER_SHARD", 5 * 96 * 4)  # of two chunks of four clips
    assert extracted(config(footage, tmp_path), one_rank, "toys")
    assert sorted(map(len, shards(tmp_path))) == [4, 8]


def test_a_feature_does_not_depend_on_what_else_was_missing(footage, tmp_path, one_rank, monkeypatch):
    """To the bit: chunks that are not full are filled up."""
    cell, whole = config(footage, tmp_path / "a"), config(footage, tmp_path / "b")
    sizes, plain = set(), VideoClassifier.features
    monkeypatch.setattr(VideoClassifier, "features", lambda self, clips: (sizes.add(len(clips)), plain(self, clips))[1])
    for rows in ([7], [0, 1, 2, 3, 11], list(range(12))):
        assert extracted(cell, one_rank, "toys", rows=np.array(rows))
    assert sizes == {4}  # on a GPU the size of a batch chooses the kernel, and that the last bits
    assert extracted(whole, one_rank, "toys")
    assert stored(tmp_path / "a") == stored(tmp_path / "b")


def test_a_signal_saves_and_stops(footage, tmp_path, one_rank, monkeypatch):
    monkeypatch.setattr(preempt, "_received", [])
    cell = config(footage, tmp_path / "features")
    before = signal.getsignal(signal.SIGUSR2)
    preempt.listen(("USR2",))
    try:
        assert not extracted(cell, one_rank, "toys", lambda *_: os.kill(os.getpid(), signal.SIGUSR2))
        assert len(stored(tmp_path / "features")) == 8  # it came after the first chunk and was seen after the second
        began = time.monotonic()
        assert waiting.on_main(lambda: time.sleep(60), one_rank, lambda: None) == (False, None)
        assert time.monotonic() - began < 30
        run = make_run(tmp_path / "run", cell)
        assert not probe(run, cell, one_rank, 0.0) and not run.predictions.exists() and not run.result.exists()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_damaged_shard_is_extracted_again(footage, tmp_path, one_rank, monkeypatch, capsys):
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", 4)
    cell, ticks = config(footage, tmp_path / "features"), Ticks()
    assert extracted(cell, one_rank, "toys")
    before = stored(tmp_path / "features")
    shard = next((tmp_path / "features").glob("*/*.npy"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert extracted(cell, one_rank, "toys", ticks)
    assert "is damaged" in capsys.readouterr().out and ticks == [("features", 4, 4)]
    assert stored(tmp_path / "features") == before


def test_unreadable_clips_are_counted_after_the_others_are_saved(footage, tmp_path, one_rank, monkeypatch):
    cell = config(footage, tmp_path / "features")
    manifest = Manifest.read(footage / "toys.csv")
    broken = [tmp_path / f"{i}.mp4" for i in range(2)]
    sources = [Source(manifest.path(row), "a") for row in range(4)] + [Source(str(path), "a") for path in broken]
    for path, row in zip(broken, (4, 5), strict=True):
        path.write_bytes(Path(manifest.path(row)).read_bytes())
    build_manifest(sources, tmp_path / "s.csv", Check("auto", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    bad = Manifest.read(tmp_path / "s.csv")
    rows = [row + 1 for row in range(6) if Path(bad.path(row)) in broken]
    store = FeatureStore(tmp_path / "features", feature_spec(cell))
    with pytest.raises(ValueError, match=rf"2 of 6 clips cannot be read \(rows {rows[0]}, {rows[1]} ") as error:
        extract.extract(lambda: frozen_encoder(cell, one_rank), bad, np.arange(6), store, cell, one_rank, Ticks())
    assert "mp4" not in str(error.value) and len(stored(tmp_path / "features")) == 4
    monkeypatch.setattr(extract, "GIVE_UP", 1)  # of many, each costs the limit of reading
    one_by_one = config(footage, tmp_path / "features", "evaluate.batch=1")
    with pytest.raises(ValueError, match=r"at least 1 of 2 clips cannot be read"):
        extract.extract(lambda: frozen_encoder(cell, one_rank), bad, np.arange(6), store, one_by_one, one_rank, Ticks())


def test_another_jobs_lock_is_waited_for_and_taken_over_when_stale(footage, tmp_path, one_rank, monkeypatch, capsys):
    monkeypatch.setattr(extract, "POLL_S", 0.05)
    cell = config(footage, tmp_path / "features")
    store = FeatureStore(tmp_path / "features", feature_spec(cell))
    write_json(store.lock, {"schema": 1, "job_id": "9", "host": "elsewhere", "pid": 1, "time": time.time() - 700})
    waited = Ticks()

    def other_dies(*what):
        waited.append(what)
        if len(waited) == 3:
            os.utime(store.lock, (0, 0))

    assert extracted(cell, one_rank, "toys-val", other_dies)
    assert [w[0] for w in waited] == ["waiting for features"] * 3 + ["features"] * 2
    said = capsys.readouterr().out
    assert said.count("is being filled by job 9") == 1 and "waiting for it" in said
    assert not store.lock.exists()


def test_jobs_and_ranks_at_once_extract_each_clip_once(footage, tmp_path, one_rank):
    """Two jobs of one rank, of overlapping clips, and one of two ranks: the same features to the bit as here."""
    here = config(footage, tmp_path / "here")
    assert extracted(here, one_rank, "toys-val") and extracted(here, one_rank, "toys")
    jobs = [make_run(tmp_path / f"job{i}", config(footage, tmp_path / "jobs", *more)) for i, more in enumerate([
        [], ["data.subset=''"]])]
    both = make_run(tmp_path / "ranks", config(footage, tmp_path / "ranks-features"))
    envs = [{"VIDMAE_JOB_ID": str(i)} for i in range(2)] + [
        {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
         "VIDMAE_JOB_ID": "2"} for port in [free_port()] for r in range(2)]
    paths = [str(run.path) for run in (*jobs, both, both)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")
           and k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    done = started.run("tests.support.programs.probe", json.dumps(envs), *paths, env=env, timeout_s=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [read_json(run.result)["train_clips"] for run in (*jobs, both)] == [6, 12, 6]
    assert [read_json(run.result)["world_size"] for run in (*jobs, both)] == [1, 1, 2]
    expected, of_ranks = stored(tmp_path / "here"), stored(tmp_path / "ranks-features")
    assert stored(tmp_path / "jobs") == expected
    assert len(of_ranks) == 12 and of_ranks.items() <= expected.items()
    assert jobs[0].predictions.read_bytes() == both.predictions.read_bytes()


def test_an_error_of_rank_0_is_raised_where_it_is_waited_for(one_rank):
    with pytest.raises(ZeroDivisionError):
        waiting.on_main(lambda: 1 // 0, one_rank, lambda: None)
    assert waiting.on_main(lambda: 5, one_rank, lambda: None) == (True, 5)


def test_a_cell_of_clusters_learns_from_no_clip(footage, tmp_path, one_rank, capsys):
    cell = config(footage, tmp_path / "features", "method=cluster", "data.subset=''", "data.shots=0")
    run = make_run(tmp_path / "run", cell)
    assert probe(run, cell, one_rank, 0.0)
    result, written = read_json(run.result), Predictions.read(run.predictions)
    assert (result["train_clips"], result["clips"], result["steps"], len(written)) == (0, 6, None, 6)
    assert sorted(map(len, shards(tmp_path / "features"))) == [6], "the clips to learn from were not even read"
    found = result["clustering"]
    assert found["clusters"] == 3 and 50 <= found["purity_pct"] <= 100 and 0 < found["nmi_chance_pct"] < 100
    assert result["top1_pct"] == topk_pct(written, 1) <= found["purity_pct"] + 1e-9, "one to one, so never purer than purity"
    assert "3 clusters of 6 clips, the tightest of 10 starts: NMI" in capsys.readouterr().out
    of, numbers = read_result(run.result.read_bytes())
    assert of.method == "cluster" and numbers.nmi_pct == found["nmi_pct"] and numbers.ari_pct == found["ari_pct"]


def test_several_views_of_a_clip_are_stored_together_and_one_of_them_is_read(footage, tmp_path, one_rank):
    """Batches of four views do not hold whole clips of three: each clip has its own views all the same, in order."""
    cell = config(footage, tmp_path / "features", "method=attentive", "probe.views=3x1", "probe.blocks=2", "probe.heads=4",
                  "probe.lrs=[0.003, 0.0003]")
    assert extracted(cell, one_rank, "toys-val")
    store = FeatureStore(tmp_path / "features", feature_spec(cell))
    manifest, model = Manifest.read(footage / "toys-val.csv"), frozen_encoder(cell, one_rank).eval()
    rows = store.rows(manifest.footage)
    assert rows.shape == (3, 4, 96) and rows[:].shape == (6, 3, 4, 96) and store.spec.views == 3
    for row in range(6):
        (views,) = view_loader(manifest, np.array([row]), ViewSpec(4, 2, 30.0, 32, views="3x1"), rank=0, world_size=1, batch=3,
                               workers=0, read_limit_s=0, read_retries=0)
        expected = frozen_features(model, views.clips, (2, 2, 1), "fp32")
        assert np.allclose(rows[np.array([row])][0], expected, atol=4e-3) and np.abs(expected[0] - expected[2]).max() > 0.02
    some, which = np.array([4, 0, 4]), np.array([2, 1, 0])
    assert np.array_equal(rows[some, which], rows[:][some, which])
    run = make_run(tmp_path / "run", cell)
    assert probe(run, cell, one_rank, 0.0)
    chosen = read_json(run.result)["chosen"]
    assert chosen["lr"] in (0.003, 0.0003) and (chosen["tried"], chosen["held_out"]) == (2, 3)
