"""A cell of the dense probes from its folder to its result: stopped and continued, in three layouts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runs import CELL
from tests.vidmae.evaluate.dense.test_layouts import tracks, write_davis
from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.dense_sets import RENDERED, content_of
from vidmae.evaluate.dense.dense_table import Line, make_table, records_of
from vidmae.evaluate.dense.tapvid_layout import write_tapvid
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.layers import build, parse_set, to_yaml
from vidmae.settings.programs.dense_config import DenseConfig, SetKind
from vidmae.train.cell import main

SMALL = ["dense.scenes=3", "dense.scene_frames=4", "dense.scene_px=32", "dense.tuning_scenes=1", "evaluate.batch=4"]


def make_run(path: Path, kind: SetKind = "generated", where: Path | None = None, *settings: str) -> RunFolder:
    """A cell that has not run yet."""
    given = [*CELL, *SMALL, f"dense.kind={kind}", f"dense.set_name={kind}", f"dense.path={where or ''}",
             f"dense.content={content_of(kind, where)}", *settings]
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(build(DenseConfig, parse_set(given))[0]))
    write_json(run.record, {"schema": 1, "kind": "dense", "name": "dense", "signature": "89ab0000", "cell": {"checkpoint": "tiny"},
                            "submissions": []})
    return run


def test_a_cell_that_is_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "whole-89ab0000")
    assert main(str(run.path)) == 0
    result = read_json(run.result) or {}
    assert (result["kind"], result["sequences"], result["frames"], result["cell"]) == ("dense", 3, 12, {"checkpoint": "tiny"})
    assert {"jf_mean_pct", "j_decay_pct", "first_delta_pct", "strided_aj_pct"} <= set(result["scores"]) and result["hidden_px"] >= 2
    stopped = make_run(tmp_path / "stopped-89ab0000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidmae.train.dense_cell.Pulse", lambda *_: lambda what, done, *_more: what == "sequences" and done == 2)
        assert main(str(stopped.path)) == 75
    assert len(records_of(stopped)) == 2 and not stopped.result.exists()
    made: list[int] = []
    scene = __import__("vidmae.train.dense_cell", fromlist=["study"]).study
    monkeypatch.setattr("vidmae.train.dense_cell.study", lambda *args: (made.append(1), scene(*args))[1])
    assert main(str(stopped.path)) == 0 and len(made) == 1
    assert records_of(stopped) == records_of(run)
    markdown, values = make_table([Line("tiny", "generated", run, stopped), Line("static", "generated", stopped)])
    assert "| tiny | generated |" in markdown and "+0.0" in markdown and len(values.splitlines()) == 1 + 2 * len(result["scores"])
    assert main(str(run.path)) == 0, "it is done"


def test_sets_on_disk_and_controls(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    davis = write_davis(tmp_path / "DAVIS")
    parts = tracks(frames=4)
    write_tapvid(tmp_path / "secret.npz", DenseSequence(parts["video"], points=parts["points"], occluded=parts["occluded"]))
    scores = {}
    for name, kind, where, features in (("d", "davis", davis, "encoder"), ("t", "tapvid", tmp_path / "secret.npz", "pixels"),
                                        ("s", "davis", davis, "static"), ("c", "davis", davis, "ceiling"), ("m", "generated", None, "mean"),
                                        ("o", "generated", None, "oracle")):
        run = make_run(tmp_path / f"{name}-89ab0000", kind, where, f"dense.features={features}")  # type: ignore[arg-type]
        assert main(str(run.path)) == 0, capfd.readouterr().err
        scores[name] = (read_json(run.result) or {})["scores"]
    assert "first_delta_pct" not in scores["d"] and "jf_mean_pct" not in scores["t"] and "strided_occlusion_pct" in scores["t"]
    assert scores["o"]["jf_mean_pct"]["pct"] > scores["m"]["jf_mean_pct"]["pct"] + 10
    assert scores["s"]["j_mean_pct"]["pct"] < 100
    changed = make_run(tmp_path / "x-89ab0000", "tapvid", tmp_path / "secret.npz")
    (tmp_path / "secret.npz").write_bytes(b"other")
    assert main(str(changed.path)) == 2 and "the set tapvid has changed since the sweep was submitted" in capfd.readouterr().err
    assert content_of("generated", None) == RENDERED
    out = capfd.readouterr()
    assert "secret" not in out.out + out.err
