"""A finished cell under conditions: twice and on two ranks to the last bit, by hand, and what is refused."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import videos
from tests.support.facilities import demo_clips, need
from tests.support.ranks import run_ranks
from tests.support.tested import changed, make_cell, make_test
from vidmae.clips.transforms import crop_resize
from vidmae.clips.views import ViewSpec, view_box, view_frames
from vidmae.evaluate import condition_loader
from vidmae.evaluate.condition_loader import portions_of_rank, under, views_under
from vidmae.evaluate.condition_pass import _Share
from vidmae.evaluate.corruptions.conditions import Condition, apply, parse_conditions
from vidmae.evaluate.predict import view_spec
from vidmae.footage.manifest import Check, Manifest, Row, Source, content_hash, read_summary, write_manifest
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import open_video, probe
from vidmae.labels.label_map import make_label_map
from vidmae.model.weights import load_weights
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import DataConfig
from vidmae.settings.layers import load
from vidmae.settings.programs.evaluation_config import RobustnessConfig
from vidmae.train.build import build_classifier_for
from vidmae.train.cell import main
from vidmae.train.robustness_cell import read_tested, record_of_text

CONDITIONS = ("clean", "gaussian_noise:3", "contrast:5", "gaussian_noise-flicker:2", "patch_shuffle:1")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven short clips of three classes."""
    need("clips")
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("labelled")
    source = next(p for p in demo_clips() if "bunny" not in p.name)
    videos.ffmpeg("-i", source, "-an", "-vf", "scale=-2:48", *videos.X264, "-preset", "ultrafast", "-force_key_frames",
                  "expr:gte(t,n_forced*0.5)", "-f", "segment", "-segment_time", "0.5", "-reset_timestamps", "1", folder / "secret-%d.mp4")
    clips = [p for p in sorted(folder.iterdir()) if probe(str(p)).frames > 10][:7]
    sources = [Source(str(clip), "abc"[i % 3]) for i, clip in enumerate(clips)]
    build(sources, folder / "m.csv", Check("decord", False), workers=1, time_limit_s=120, progress=lambda *_: None)
    return folder / "m.csv"


@pytest.fixture(scope="module")
def cell(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_cell(tmp_path_factory.mktemp("runs"), manifest)


@pytest.fixture(scope="module")
def found(cell: RunFolder, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = make_test(cell, tmp_path_factory.mktemp("found") / "robust-89ab0000", manifest, CONDITIONS)
    assert main(str(run.path)) == 0
    return run


def bits(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.conditions.iterdir())}


def test_twice_and_with_workers_it_is_the_same_to_the_last_bit(found: RunFolder, cell: RunFolder, manifest: Path, tmp_path: Path) -> None:
    again = make_test(cell, tmp_path / "again-89ab0000", manifest, CONDITIONS)
    changed(again, data={"workers": 2, "read_limit_s": 60.0})
    assert main(str(again.path)) == 0 and bits(again) == bits(found)


@pytest.mark.slow
def test_two_ranks_find_the_same_to_the_last_bit(found: RunFolder, cell: RunFolder, manifest: Path, tmp_path: Path) -> None:
    ranks = make_test(cell, tmp_path / "ranks-89ab0000", manifest, CONDITIONS)
    assert run_ranks("tests.support.programs.cell", str(ranks.path), world_size=2) == [0, 0]
    assert bits(ranks) == bits(found) and len(bits(found)) == len(CONDITIONS)
    assert (read_json(ranks.result) or {})["world_size"] == 2


def test_a_cell_that_is_stopped_goes_on_with_the_same_bits(found: RunFolder, cell: RunFolder, manifest: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_test(cell, tmp_path / "stopped-89ab0000", manifest, CONDITIONS)
    opened: Counter[int] = Counter()
    read = condition_loader.Reader.read
    monkeypatch.setattr(condition_loader.Reader, "read", lambda self, row, *more: (opened.update([row]), read(self, row, *more))[1])
    with pytest.MonkeyPatch.context() as patch:  # a signal comes while the second batch of the fourth clip is awaited
        patch.setattr("vidmae.train.robustness_cell.Pulse", lambda *_: lambda what, done, total: done == 7)
        assert main(str(run.path)) == 75
    assert not run.result.exists() and (run.path / "partial.npz").exists() and opened == Counter(dict.fromkeys(range(4), 1))
    assert main(str(run.path)) == 0 and bits(run) == bits(found) and not (run.path / "partial.npz").exists()
    assert opened == Counter({0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1, 6: 1}), "the clip that was not whole is read again"


def test_what_is_said_is_what_the_model_says_of_the_corrupted_frames(found: RunFolder, manifest: Path) -> None:
    config = load(RobustnessConfig, found.config)
    model = build_classifier_for(config, 3, start=False).eval()
    load_weights(model, RunFolder(Path(config.tested.run)).weights)
    rows, spec = Manifest.read(manifest), view_spec(config)
    said = {text: Predictions.read(found.conditions / f"{text.replace(':', '-')}.npz") for text in CONDITIONS}
    for row in range(len(rows)):
        content = int(rows.content[row])
        with open_video(rows.path(row), "decord") as video:
            frames = video.read(np.arange(video.num_frames))
        which = view_frames(spec, 0, content=content, total_frames=len(frames), fps=float(rows.fps[row]))
        box, flip = view_box(spec, 0, content=content, height=frames.shape[1], width=frames.shape[2])
        clip = crop_resize(frames, which, box, 32, flip=flip).numpy()
        for condition in parse_conditions(",".join(CONDITIONS)):
            with torch.no_grad():
                prob = model(torch.from_numpy(apply(clip, condition, content))[None])[0].double().softmax(0).numpy()
            one = said[condition.text]
            assert one.content[row] == rows.content[row] and one.label[row] == rows.class_index[row]
            assert one.prob[row] == pytest.approx(prob[one.label[row]], abs=1e-5)
    assert len({one.prob.tobytes() for one in said.values()}) == len(CONDITIONS), "conditions differ"
    result = read_json(found.result) or {}
    assert [each["text"] for each in result["conditions"]] == list(CONDITIONS) and result["own_set"] and result["cell_top1_pct"] == 50
    assert [each["generated"] for each in result["conditions"]] == [False] * 4 + [True]
    assert [each["imagenet_c"] for each in result["conditions"]] == [False, True, True, False, False]
    assert "secret" not in str(result)


def test_every_clip_is_decoded_once(found: RunFolder, cell: RunFolder, manifest: Path, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[int] = Counter()
    read = condition_loader.Reader.read
    monkeypatch.setattr(condition_loader.Reader, "read", lambda self, row, *more: (opened.update([row]), read(self, row, *more))[1])
    run = make_test(cell, tmp_path / "once-89ab0000", manifest, CONDITIONS)
    changed(run, evaluate={"batch": 2})
    assert main(str(run.path)) == 0 and opened == Counter(dict.fromkeys(range(7), 1)), "in three batches"


def test_all_batches_of_a_clip_fall_to_one_worker_and_are_the_same_for_any_number_of_ranks_and_workers() -> None:
    def all_of(world_size: int, workers: int, batch: int, conditions: int, views: int) -> set[tuple[tuple[int, ...], int, int]]:
        found = set()
        for rank in range(world_size):
            own = portions_of_rank(11, conditions, views, batch, rank=rank, world_size=world_size, workers=workers)
            found |= {(tuple(p.clips), p.first, p.stop) for p in own}
            whole = len(own) - len(own) % (workers * len({(p.first, p.stop) for p in own})) if workers else 0
            by_clip: dict[range, set[int]] = {}
            for place, portion in enumerate(own[:whole]):
                by_clip.setdefault(portion.clips, set()).add(place % workers)
            assert all(len(who) == 1 for who in by_clip.values())
        return found

    for batch, conditions, views in ((16, 75, 1), (16, 5, 1), (8, 3, 6), (4, 5, 6), (1, 2, 1)):
        alone = all_of(1, 0, batch, conditions, views)
        pairs = [(clip, pair) for clips, first, stop in alone for clip in clips for pair in range(first, stop)]
        assert len(pairs) == len(set(pairs)) == 11 * conditions * views
        assert max(len(clips) * (stop - first) for clips, first, stop in alone) <= batch
        assert all(first % views == 0 for _, first, _ in alone) or views > batch
        assert alone == all_of(2, 3, batch, conditions, views) == all_of(4, 2, batch, conditions, views)


def test_a_still_picture_is_changed_once_and_frames_that_are_views_are_one_clip() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8), 4, axis=0)
    for text in ("gaussian_noise:3", "glass_blur:2", "snow:3", "patch_shuffle:2", "phase_noise:2", "silhouette:1"):
        condition, = parse_conditions(text)
        assert np.array_equal(under(condition, still, 7), apply(still, condition, 7)), text
    flicker = Condition("gaussian_noise-flicker", 3)
    assert len({frame.tobytes() for frame in under(flicker, still, 7)}) == 4, "a picture flickers, too"
    views = still[:, None]
    assert np.array_equal(views_under(flicker, views, 7, one_clip=True)[:, 0], apply(still, flicker, 7))
    apart = views_under(flicker, views, 7, one_clip=False)
    assert (apart == apart[:1]).all(), "clips of one frame have the same noise"


def test_a_finetuned_file_says_what_the_cell_says_whose_weights_it_has(found: RunFolder, cell: RunFolder, manifest: Path, tmp_path: Path,
                                                                       capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "released.safetensors"
    shutil.copy(cell.weights, file)
    content = read_summary(manifest).content_sha256
    of_file = {"run": "", "signature": content_hash(file), "weights": str(file), "classes_of": str(manifest), "classes_content": content}
    run = make_test(cell, tmp_path / "file-89ab0000", manifest, CONDITIONS, **of_file)
    assert main(str(run.path)) == 0 and bits(run) == bits(found)
    result = read_json(run.result) or {}
    assert result["own_set"] and result["cell_top1_pct"] is None
    file.write_bytes(b"other")
    run = make_test(cell, tmp_path / "changed-89ab0000", manifest, ["clean"], **of_file)
    assert main(str(run.path)) == 2 and "has changed since the sweep was submitted" in capfd.readouterr().err


def test_a_convolutional_net_is_tested_as_any_other(manifest: Path, tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "runs", manifest, "model.name=vit_nano_patch8", "model.net=conv", "model.pool=mean")
    run = make_test(cell, tmp_path / "conv-89ab0000", manifest, ["clean", "reversed"])
    assert main(str(run.path)) == 0
    clean, reversed_ = (Predictions.read(run.conditions / f"{name}.npz") for name in ("clean", "reversed-1"))
    assert len(clean) == 7 and not np.array_equal(clean.prob, reversed_.prob)


def test_frames_that_are_views_have_their_scores_averaged(manifest: Path, tmp_path: Path) -> None:
    rows, scores = Manifest.read(manifest), np.array([[0.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    share = _Share(rows, make_label_map("abc", "abc"), 2, of_scores=True)  # as vidmae/evaluate/predict.py does it, view by view
    batch = condition_loader.ConditionBatch(np.array([0, 0]), np.array([0, 0]), torch.zeros(2))
    share.add(batch, scores)
    mean = np.exp(scores.mean(axis=0))
    assert share.columns()[2].prob[0] == pytest.approx(mean[0] / mean.sum())


def test_labels_are_mapped_and_clips_without_an_answer_left_out(cell: RunFolder, manifest: Path, tmp_path: Path) -> None:
    listed = tmp_path / "map.csv"
    listed.write_text("label,class\na,a\nb,b\nb,c\n")
    run = make_test(cell, tmp_path / "mapped-89ab0000", manifest, ["clean"], label_map=str(listed))
    assert main(str(run.path)) == 0
    result, said = read_json(run.result) or {}, Predictions.read(run.conditions / "clean.npz")
    assert (result["clips"], result["left_out"], result["answers"]) == (5, 2, 2) and said.classes.tolist() == ["a", "b"]


@pytest.mark.parametrize("method", ["knn", pytest.param("linear", marks=pytest.mark.slow), pytest.param("attentive", marks=pytest.mark.slow)])
def test_a_probe_is_fitted_again(method: str, manifest: Path, tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "runs", manifest, f"method={method}", f"probe.features={tmp_path / 'features'}", "probe.token_grid=[2,2,2]",
                     "probe.epochs=1", "data.shots=0", weights=False)
    run = make_test(cell, tmp_path / "probe-89ab0000", manifest, ["clean", "contrast:5"])
    tested = load(RobustnessConfig, run.config)
    assert tested.method == method
    data = read_tested(tested)
    assert len(data.rows) == 7
    with pytest.MonkeyPatch.context() as patch:  # the clips that it learned from are those that it is tested on
        patch.setattr("vidmae.labels.cell_data.check_apart", lambda *_: None)
        assert main(str(run.path)) == 0
    clean, contrast = (Predictions.read(run.conditions / name) for name in ("clean.npz", "contrast-5.npz"))
    assert (clean.prob != contrast.prob).any()
    if method == "knn":
        assert len(clean) == 7 and np.isfinite(clean.prob).all()


def test_what_cannot_be_tested_is_refused(cell: RunFolder, manifest: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gone = make_cell(tmp_path / "gone", manifest, weights=False)
    run = make_test(gone, tmp_path / "none-89ab0000", manifest, ["clean"])
    assert main(str(run.path)) == 2 and "did not keep them; run the cell again with --set keep_weights=true" in capfd.readouterr().err
    frames = make_test(cell, tmp_path / "frames-89ab0000", manifest, ["clean"])
    changed(frames, model={"num_frames": 8})
    assert main(str(frames.path)) == 2 and "num_frames" in capfd.readouterr().err
    unknown = make_test(cell, tmp_path / "unknown-89ab0000", manifest, ["clean", "gausian_noise:3"])
    assert main(str(unknown.path)) == 2 and "gaussian_noise" in capfd.readouterr().err
    for run in (frames, unknown):
        assert not run.result.exists() and not run.conditions.exists()
    shutil.rmtree(tmp_path / "gone")


def test_folders_say_what_was_done_to_sets_that_are_tested_as_they_are_alone(cell: RunFolder, tmp_path: Path) -> None:
    def listed(name: str, *folders: str) -> Path:
        path = tmp_path / f"{name}.csv"
        write_manifest(path, [Row(f"/secret/{folder}/{'abc'[i % 3]}/{i}.png", "abc"[i % 3], 1, 1.0, 1.0, 9, 8, 8, "png", 0, 0, 0, f"{i:016x}",
                                  1, "decord") for i, folder in enumerate(folders * 3)], [], Check("decord", True))
        return path

    def folders_of(manifest: Path, conditions: tuple[str, ...] = ("clean",), **tested: object) -> tuple[str, ...]:
        run = make_test(cell, tmp_path / f"{manifest.stem}-{len(list(tmp_path.iterdir()))}-89ab0000", manifest, conditions, **tested)
        return read_tested(load(RobustnessConfig, run.config)).folders

    made = listed("made", "fog/1", "hmdb/3")
    assert folders_of(made) == ("fog:1", "hmdb:3") * 3
    assert folders_of(made, ("clean", "fog:1")) == folders_of(made, by_folder=False) == ()
    with pytest.raises(ValueError, match=r"'gaussian noise:3' and 'gaussian-noise:3' would both be kept in gaussian-noise-3\.npz"):
        folders_of(listed("alike", "gaussian noise/3", "gaussian-noise/3"))
    assert not record_of_text("frost:3")["generated"] and record_of_text("frost:3")["imagenet_c"]
    assert record_of_text("a:b:3")["level"] == 3


def test_prepared_clips_are_tested_as_their_recordings(manifest: Path) -> None:
    rows = Manifest.read(manifest)
    prepared, spec = replace(rows, content=rows.content + np.uint64(1)), ViewSpec(4, 1, 30.0, 32)
    said = [next(iter(condition_loader.condition_loader(each, np.arange(2), spec, parse_conditions("gaussian_noise:3"), rank=0, world_size=1,
                                                        batch=2, data=DataConfig(workers=0)))).clips for each in (rows, prepared)]
    assert torch.equal(*said), "noise is drawn by the recording"
    share = _Share(prepared, make_label_map("abc", "abc"), 1, of_scores=False)
    share.add(condition_loader.ConditionBatch(np.array([1]), np.array([0]), torch.zeros(1)), np.full((1, 3), 1 / 3))
    assert share.columns()[2].content.tolist() == [rows.source[1]]
