from __future__ import annotations

from pathlib import Path

import pytest

from jobs import evaluate
from tests.support.labelled import write_labelled
from vidmae.footage.manifest import content_hash
from vidmae.runs.record import RunFolder, write_json
from vidmae.settings.layers import ConfigError


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished cell, beside a labelled data set."""
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "manifests")
    run = RunFolder(tmp_path / "runs/s-toys-2shot-seed0-finetune-11111111")
    run.path.mkdir(parents=True)
    write_json(run.record, {"submissions": []})
    write_json(run.result, {"top1_pct": 50.0})
    return run


def resolve(*flags: str) -> object:
    return evaluate.resolve(evaluate.make_parser().parse_args([*flags, "--data", "toys", "--out", "out"]))


def test_a_cell_that_kept_its_weights_is_named_like_any_run(cell: RunFolder) -> None:
    cell.weights.write_bytes(b"weights")
    config = resolve("--run", "s-toys", "--views", "10x3")
    assert config.weights == str(cell.weights) and config.weights_content == content_hash(cell.weights)
    assert config.evaluate.views == "10x3" and config.data.name == "toys"


def test_a_cell_without_weights_says_how_to_keep_them(cell: RunFolder) -> None:
    assert cell.result.exists()
    with pytest.raises(ConfigError, match=r"no weights.safetensors: it did not keep them \(--set keep_weights=true\)"):
        resolve("--run", "s-toys")


def test_flags_are_stronger_than_set(cell: RunFolder) -> None:
    cell.weights.touch()
    config = resolve("--weights", str(cell.weights), "--workers", "3", "--device", "cpu", "--set", "data.workers=7")
    assert config.data.workers == 3 and config.device == "cpu"
    assert resolve("--weights", str(cell.weights), "--set", "data.workers=7").data.workers == 7
