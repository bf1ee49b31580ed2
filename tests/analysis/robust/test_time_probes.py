"""The table of temporal probes: the numbers of the cells, and what is missing is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from analysis import time
from vidmae.runs.record import make_private_folder, write_json


def write_probes(runs: Path, checkpoint: str = "s-vith14", seed: int = 0, *, image: bool = False) -> Path:
    """A finished cell of temporal probes."""
    def number(value: float, name: str = "pct") -> dict[str, Any]:
        return {name: value, "low": value - 4, "high": value + 5}

    features = {"model": number(71.0), "pixels": {"pct": 50.0, "low": None, "high": None}, "still": number(51.0), "random": number(55.5),
                "change": number(52.0), "oracle": number(100.0), **({} if image else {"frames": number(50.0)})}
    apart = {name: number(71.0 - float(features[name]["pct"]), "points") for name in ("pixels", "still", "random")}
    probes = [{"probe": name, "classes": ["a", "b"], "chance_pct": chance, "recordings": [8, 4, 8], "clips": [160, 80, 160],
               "features": features, "apart": apart} for name, chance in (("speed", 100 / 3), ("arrow", 50.0))]
    cell = {"checkpoint": checkpoint, "checkpoint_content": "run:1", "set": "s-val", "seed": seed, "probes": ["arrow", "speed"]}
    folder = make_private_folder(runs / f"time-{checkpoint}-on-s-val-seed{seed}-0123abc{seed}")
    write_json(folder / "run.json", {"schema": 1, "kind": "temporal", "name": "time", "signature": f"0123abc{seed}", "cell": cell})
    write_json(folder / "result.json", {"schema": 1, "kind": "temporal", "cell": cell, "set": "s-val", "probes": probes, "pool": "cls",
                                        "num_frames": 1 if image else 16})
    return folder


def test_the_table_shows_what_cells_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = tmp_path / "runs", tmp_path / "tables"
    write_probes(runs, "s-vith14")
    write_probes(runs, "s-image", image=True)
    assert time.main([str(runs), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["probe"], row["model"]) for row in told["probes"]] == [("arrow", "s-image"), ("arrow", "s-vith14"), ("speed", "s-image"),
                                                                        ("speed", "s-vith14")]
    assert told["rows"] == [] and told["probes"][0]["frames_pct"] is None and told["probes"][1]["minus_still_points"] == 20
    with (out / "time-probes.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert rows[1]["model_low"] == "67.0" and rows[1]["pixels_low"] == "--" and rows[0]["minus_frames_points"] == "--"
    text = (out / "time-probes.md").read_text()
    assert "| s-val | arrow | s-vith14 | cls | 0 | 0123abc0 | 71.0 [67.0, 76.0] | 50.0 | 51.0 [47.0, 56.0] |" in text and "33.3" in text
    assert not (out / "time.md").exists()


def test_cells_without_a_result_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = tmp_path / "runs", tmp_path / "tables"
    (write_probes(runs, seed=1) / "result.json").unlink()
    assert time.main([str(runs), "--out", str(out)]) == 2
    assert "python sweeps/probes.py" in (said := capsys.readouterr().err) and "seed1-0123abc1: no result yet" in said
    write_probes(runs)
    (write_probes(runs, seed=2) / "result.json").write_text("{}")
    assert time.main([str(runs), "--out", str(out)]) == 3
    said = capsys.readouterr().err
    assert "missing: time-s-vith14-on-s-val-seed1-0123abc1: no result yet" in said and "seed2-0123abc2: its records are damaged" in said
