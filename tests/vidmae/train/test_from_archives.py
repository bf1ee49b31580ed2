"""The training program on prepared footage: the losses are those of the raw files, nearly, and damage is counted."""

import numpy as np
import pytest

from tests.support.runs import make_manifest, make_run, train
from vidmae.footage.archives.archive_layout import split_row_path
from vidmae.footage.manifest import Manifest
from vidmae.preparing.preparation import Preparation
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepared_folder import Order
from vidmae.runs.metrics import read_metrics
from vidmae.runs.quarantine import read_quarantine

STEPS = 12
LONGER = f"train.phases=[{{duration: {STEPS} steps, lr: 1.0e-3}}]"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Real clips, and the same with all of their frames at 144 px."""
    folder = tmp_path_factory.mktemp("data")
    raw, prepared = make_manifest(folder), folder / "clips-144.csv"
    prepare(Order(raw, Preparation(fps=30, short_side_px=144), folder / "data", prepared), workers=1, time_limit_s=60,
            tell=lambda *_: None)
    return raw, prepared


@pytest.mark.slow
def test_losses_are_those_of_the_raw_files(manifests, tmp_path):
    losses = []
    for name, manifest in zip(("raw", "prepared"), manifests, strict=True):
        run = make_run(tmp_path / name, manifest, LONGER, "data.workers=1", "data.recheck_pct=100")
        codes, said = train(run)
        assert codes == [0], said
        losses.append([m["loss"] for m in read_metrics(run)])
        assert all(m["substituted"] == 0 for m in read_metrics(run))
    assert np.mean(losses[1]) == pytest.approx(np.mean(losses[0]), rel=0.03) and losses[1] != losses[0]


def test_a_missing_recording_is_replaced_and_counted(manifests, tmp_path):
    """One of four recordings is damaged: its clips come from others, named by row."""
    manifest = Manifest.read(manifests[1])
    archive, key = split_row_path(manifest.path(0))
    entries = np.load(archive.with_suffix(".npy"))
    whole = archive.read_bytes()
    with archive.open("r+b") as file:
        for entry in entries[entries["key"] == key]:
            file.seek(int(entry["offset"]) + 100)
            file.write(b"damage")
    try:
        run = make_run(tmp_path / "run", manifests[1], "data.max_bad_pct=100")
        codes, said = train(run)
    finally:
        archive.write_bytes(whole)
    assert codes == [0], said
    assert {gone.row for _, gone in read_quarantine(run)} == {0} and "checksum" in run.quarantine.read_text()
