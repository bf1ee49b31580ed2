"""One model on real clips: on 1 and on 4 ranks to the last bit, by hand, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import videos
from tests.support.facilities import demo_clips, need
from tests.support.programs.evaluate import CLASSES, DATA, SPEC, VIEWS, classifier, look, plain
from tests.support.ranks import run_ranks
from vidmae.clips.transforms import crop_resize
from vidmae.clips.views import view_box, view_frames
from vidmae.evaluate.predict import GIVE_UP, view_spec
from vidmae.footage.manifest import Check, Manifest, Source
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import open_video, probe
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.ranks import dist
from vidmae.runs.predictions import Predictions
from vidmae.settings.finetune_config import EvaluateConfig, FinetuneConfig


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """10 labelled clips: real ones, cut to 1.4 seconds and made small."""
    need("clips")
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("labelled")
    for source in (p for p in demo_clips() if "bunny" not in p.name):
        videos.ffmpeg("-i", source, "-an", "-vf", "scale=-2:72", *videos.X264, "-preset", "ultrafast", "-force_key_frames",
                      "expr:gte(t,n_forced*1.4)", "-f", "segment", "-segment_time", "1.4", "-reset_timestamps", "1",
                      folder / f"secret-{source.stem}-%d.mp4")
    clips = [p for p in sorted(folder.iterdir()) if probe(str(p)).frames > 30][:10]
    sources = [Source(str(clip), CLASSES[i % 6]) for i, clip in enumerate(clips)]
    build(sources, folder / "m.csv", Check("decord", False), workers=1, time_limit_s=120, progress=lambda *_: None)
    return folder / "m.csv"


@pytest.fixture(scope="module")
def manifest(path) -> Manifest:
    return Manifest.read(path)


@pytest.fixture(scope="module")
def ranks():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as the ranks of other processes have: products are the same for equal numbers alone
    ranks = dist.init("cpu")
    yield ranks
    dist.close()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(manifest, ranks) -> dict[str, Predictions]:
    return {views: look(classifier(), manifest, ranks, views) for views in VIEWS}


def test_four_ranks_find_the_same_to_the_last_bit(path, alone):
    found = run_ranks("tests.support.programs.evaluate", str(path), "views", world_size=4)
    for views in VIEWS:
        assert all(rank[views] == plain(alone[views]) for rank in found), views
    assert all(rank["error"].startswith("1 of 10 clips cannot be read (rows 9 of the manifest; the first: ") for rank in found)
    assert "secret" not in found[0]["error"]


@pytest.mark.slow
def test_sharded_weights_are_tested_by_ranks_with_more_and_fewer_batches_and_train_on(path, alone):
    found = run_ranks("tests.support.programs.evaluate", str(path), "sharded", world_size=2)
    assert found[0] == found[1], "of 5 batches rank 0 has 3"
    before, after = (np.array(result["prob"], np.int32).view(np.float32) for result in found[0])
    assert before == pytest.approx(alone["center"].prob, abs=1e-5), "ZeRO-3 multiplies with another kernel"
    assert np.abs(after - before).max() > 1e-3


def test_read_ahead_and_asked_again_it_is_the_same(manifest, ranks, alone):
    model, told = classifier().train(), []
    model.blocks[0].eval()
    training = [module.training for module in model.modules()]
    again = look(model, manifest, ranks, "2x3", data=replace(DATA, workers=1, read_limit_s=60.0), progress=lambda *of: told.append(of))
    assert plain(again) == plain(alone["2x3"])
    assert [module.training for module in model.modules()] == training
    assert told == [(i, 30) for i in range(1, 31)]
    backwards = look(classifier(), manifest, ranks, "center", rows=range(9, -1, -1))
    assert plain(backwards.take(np.arange(9, -1, -1)))["top5"] == plain(alone["center"])["top5"]
    assert backwards.content.tolist() == manifest.content[::-1].tolist()
    assert len({str(plain(p)["prob"]) for p in alone.values()}) == 3, "views differ"


def by_hand(model: VideoClassifier, frames: np.ndarray, manifest: Manifest, row: int, views: str) -> np.ndarray:
    """Softmax of a clip, view by view and out of all frames of its file, averaged."""
    spec, content, total = replace(SPEC, views=views, seed=1), int(manifest.content[row]), 0
    for view in range(number := 6 if views == "2x3" else 1):
        which = view_frames(spec, view, content=content, total_frames=len(frames), fps=float(manifest.fps[row]))
        box, flip = view_box(spec, view, content=content, height=frames.shape[1], width=frames.shape[2])
        with torch.no_grad():
            scores = model(crop_resize(frames, which, box, 32, flip=flip)[None])[0].double().numpy()
        total = total + np.exp(scores) / np.exp(scores).sum() / number
    return total


def test_predictions_are_those_worked_out_by_hand(manifest, alone):
    model = classifier().eval()
    for row in range(len(manifest)):
        with open_video(manifest.path(row), "decord") as video:
            frames = video.read(np.arange(video.num_frames))
        for views, found in alone.items():
            mean = by_hand(model, frames, manifest, row, views)
            assert found.label[row] == manifest.class_index[row] and found.content[row] == manifest.content[row]
            assert found.prob[row] == pytest.approx(mean[found.label[row]], abs=1e-6)
            assert found.top5[row].tolist() == np.argsort(-mean)[:5].tolist()
    assert alone["center"].classes.tolist() == CLASSES and alone["center"].prob.std() > 0.02


def test_scores_of_single_frames_are_averaged_before_the_softmax(manifest, ranks):
    torch.manual_seed(1)
    model = build_classifier("vit_nano_patch8", num_classes=6, img_size=32, num_frames=1, t_patch_size=1, dropout=0.0)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    spec = replace(SPEC, num_frames=1)
    found = look(model, manifest, ranks, "frames4", spec=spec)
    assert plain(found) == plain(look(model, manifest, ranks, "frames4", spec=spec, batch=3))
    differ = []
    for row in range(len(manifest)):
        with open_video(manifest.path(row), "decord") as video:
            which = view_frames(SPEC, 0, content=0, total_frames=video.num_frames, fps=float(manifest.fps[row]))
            frames = video.read(which)
        box, _ = view_box(SPEC, 0, content=0, height=frames.shape[1], width=frames.shape[2])
        with torch.no_grad():
            scores = [model.eval()(crop_resize(frames[i:i + 1], np.array([0]), box, 32, flip=False)[None])[0].double() for i in range(4)]
        mean = torch.stack(scores).mean(0).softmax(0).numpy()
        assert found.prob[row] == pytest.approx(mean[found.label[row]], abs=1e-6)
        assert found.top5[row].tolist() == np.argsort(-mean)[:5].tolist()
        differ.append(abs(float(torch.stack(scores).softmax(1).mean(0)[found.label[row]]) - found.prob[row]))
    assert max(differ) > 1e-4, "the mean of probabilities is another rule"


def test_numbers_of_training_are_those_of_the_test(manifest, ranks, alone):
    low = look(classifier(), manifest, ranks, "center", precision="bf16")
    whole = look(classifier().bfloat16(), manifest, ranks, "center", precision="bf16")
    assert 0 < np.abs(low.prob - alone["center"].prob).max() < 0.03
    assert 0 < np.abs(whole.prob - alone["center"].prob).max() < 0.05


def test_what_cannot_be_tested_is_refused(manifest, ranks):
    model = classifier()
    with torch.no_grad():
        model.head.bias[2] = float("nan")
    with pytest.raises(ValueError, match="the model's scores of 10 of 10 clips are NaN or infinite"):
        look(model, manifest, ranks, "center")
    odd = replace(manifest, class_index=np.where(np.arange(10) == 3, 6, manifest.class_index))
    with pytest.raises(ValueError, match=r"1 of 10 clips have a class index outside 0 to 5 \(the first: row 4 of the manifest"):
        look(classifier(), odd, ranks, "center")
    with pytest.raises(ValueError, match="0 clips to test"):
        look(classifier(), manifest, ranks, "center", rows=[])


def test_it_gives_up_where_the_disk_is_gone(ranks, manifest, tmp_path):
    letters = np.frombuffer(b"".join(b"/gone/%04d.mp4" % i for i in range(100)), dtype=np.uint8)
    gone = replace(manifest.take(np.zeros(100, dtype=np.int64)), _paths=letters, _path_ends=np.arange(1, 101) * 14)
    told = []
    with pytest.raises(ValueError, match=f"at least {GIVE_UP} of 100 clips cannot be read"):
        look(classifier(), gone, ranks, "center", progress=lambda *of: told.append(of))
    assert len(told) == GIVE_UP / 2


def test_a_configuration_says_what_a_view_is():
    config = FinetuneConfig(evaluate=EvaluateConfig(views="10x3", seed=4))
    spec = view_spec(config)
    assert (spec.num_frames, spec.sampling_rate, spec.target_fps, spec.img_size) == (16, 8, 30.0, 224)
    assert (spec.views_per_clip, spec.seed) == (30, 4)
