"""A second decoder reads some clips again: what differs is counted and named by row, and changes nothing."""

import numpy as np
import pytest

from tests.support.runs import make_manifest, make_run, train
from vidmae.clips.loader import make_loader
from vidmae.footage import open_video
from vidmae.footage.decoders.with_pyav import PyAvReader
from vidmae.footage.manifest import Manifest
from vidmae.runs.metrics import read_metrics

from tests.vidmae.clips.test_loader import SPEC  # isort: skip


class Spoiled(PyAvReader):
    """Gives one frame of each read a little brighter."""

    def _read_sorted(self, indices):
        frames = super()._read_sorted(indices).copy()
        frames[0] = np.minimum(frames[0].astype(int) + 5, 255)
        return frames


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("clips"))


def batches(path, pct, **options):
    return list(make_loader(Manifest.read(path), SPEC, seed=0, global_batch=8, micro_batch=8, grad_accum=1, rank=0, world_size=1,
                            start_step=0, stop_step=2, workers=0, read_limit_s=0, read_retries=0, recheck_pct=pct, **options))


def test_decoders_that_agree_give_no_alarm_and_a_spoiled_frame_does(manifest, monkeypatch):
    every = [r for b in batches(manifest, 100.0) for r in b.rechecked]
    assert len(every) == 16 and not any(r.problem for r in every)
    assert [b.rechecked for b in batches(manifest, 0.0)] == [(), ()]
    monkeypatch.setitem(open_video._READERS, "pyav", Spoiled)
    spoiled = batches(manifest, 100.0)
    assert [r.row for b in spoiled for r in b.rechecked] == [row for b in spoiled for row in b.rows.tolist()]
    assert all("grey levels between decord and pyav" in r.problem for b in spoiled for r in b.rechecked)


def test_a_share_is_drawn_by_the_place_of_the_clip(manifest):
    some = [[r.row for r in b.rechecked] for b in batches(manifest, 40.0)]
    assert 0 < sum(map(len, some)) < 16 and some == [[r.row for r in b.rechecked] for b in batches(manifest, 40.0)]


def test_a_run_counts_them_and_names_rows(manifest, tmp_path):
    plain, looked = (make_run(tmp_path / name, manifest, f"data.recheck_pct={pct}", "train.zero_stage=0")
                     for name, pct in (("plain", 0), ("looked", 100)))
    for run in (plain, looked):
        codes, said = train(run)
        assert codes == [0], said
    steps = read_metrics(looked)
    clips = 8
    assert all(m["rechecked"] == clips and m["differing"] == [] for m in steps)
    assert [m["loss"] for m in steps] == [m["loss"] for m in read_metrics(plain)]
    assert looked.weights.read_bytes()[-1000:] == plain.weights.read_bytes()[-1000:]
