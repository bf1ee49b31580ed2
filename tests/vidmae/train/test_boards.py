"""What a tracker of experiments is handed, and that none of its troubles reaches the run."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from vidmae.runs.attempts import AttemptLog
from vidmae.runs.metrics import MetricsWriter
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, build, parse_set
from vidmae.train.boards import TRACKERS, open_boards, public_settings

SECRET = "Anna"
RECORD = {"epoch": 1.0, "loss": 0.5, "lr": 1e-4, "grad_norm": 1.0, "step_s": 1.0, "data_wait": 0.0, "clips_per_s": 8.0, "mfu": None,
          "peak_gib": 1.0, "substituted": 0}


def configured(*settings: str) -> PretrainConfig:
    return build(PretrainConfig, [*parse_set([f"data.manifest=/data/{SECRET}/s.csv", f"data.name={SECRET}", f"train.init=/data/{SECRET}.pth",
                                              "log.tensorboard=false", *settings])])[0]


class Heard(types.ModuleType):
    """A stand-in for wandb that keeps all that it is handed."""

    def __init__(self, *, fails_at: int = 10**9) -> None:
        super().__init__("wandb")
        self.calls, self.rows, self.fails_at, self.finished = list[dict[str, Any]](), list[tuple[int, dict[str, float]]](), fails_at, 0

    def Settings(self, **given: Any) -> dict[str, Any]:
        return given

    def init(self, **given: Any) -> Heard:
        self.calls.append(given)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError(f"/data/{SECRET}: no network")
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def written(folder: Path, config: PretrainConfig, steps: range, said: list[str]) -> RunFolder:
    """Write the metrics of some steps, as a run does that starts after the first of them."""
    run = RunFolder(make_private_folder(folder / "s-0011aabb"))
    log = AttemptLog(run, started=0.0, reached=0)
    writer = MetricsWriter(run, log, start_step=steps.start, total_steps=9, log_every_s=1e9,
                           boards=open_boards(run, config, steps.start, said.append))
    for step in steps:
        writer.write({"step": step + 1, **RECORD})
    writer.close()
    return run


def test_a_tracker_gets_numbers_and_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, said = Heard(), list[str]()
    monkeypatch.setitem(sys.modules, "wandb", heard)
    run = written(tmp_path, configured("log.tracker=wandb"), range(2), said)
    written(tmp_path, configured("log.tracker=wandb"), range(2, 4), said)
    assert [step for step, _ in heard.rows] == [1, 2, 3, 4] and heard.finished == 2 and said == []
    numbers = {key: value for key, value in RECORD.items() if key not in ("epoch", "mfu")}
    assert all(values == numbers for _, values in heard.rows)
    assert [(call["id"], call["resume"], call["mode"]) for call in heard.calls] == [("s-0011aabb", "allow", "offline")] * 2
    assert SECRET not in json.dumps([{**call, "dir": ""} for call in heard.calls])
    assert heard.calls[0]["config"]["model.mask_ratio"] == 0.9 and Path(heard.calls[0]["dir"]) == run.tracker
    assert run.tracker.stat().st_mode & 0o777 == 0o700


def test_what_a_tracker_is_told_has_no_text_but_words_of_the_suite() -> None:
    told = public_settings(configured("data.order=age"))
    assert {key for key, value in told.items() if isinstance(value, str)} == {
        "model.name", "model.mask", "model.target", "model.feature_loss", "data.order", "data.clip", "train.precision", "train.offload"}
    assert told["data.order"] == "age" and told["seed"] == 0 and told["train.weight_decay"] == 0.05


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_tracker_that_fails_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    heard, said = Heard(fails_at=fails_at), list[str]()
    if not fails_at:
        monkeypatch.setattr(heard, "init", lambda **_: heard.log({}, 0))
    monkeypatch.setitem(sys.modules, "wandb", heard)
    run = written(tmp_path, configured("log.tracker=wandb"), range(4), said)
    assert len(run.metrics.read_text().splitlines()) == 4
    what = "failed" if fails_at else "did not start"
    assert said == [f"wandb {what} (ConnectionError), and this job goes on without it; metrics.jsonl has all numbers"]


def test_a_tracker_that_is_not_installed_or_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"log\.tracker is wandb, which is not installed here: pip install wandb"):
        written(tmp_path, configured("log.tracker=wandb"), range(1), [])
    with pytest.raises(ConfigError, match=r"log\.tracker is 'comet'.*none, wandb, mlflow, trackio"):
        configured("log.tracker=comet")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_real_trackers_keep_one_record_over_two_jobs(tmp_path: Path, name: str) -> None:
    """Without a network. Each is installed by hand for this: they are no requirements."""
    if not importlib.util.find_spec(name):  # not imported yet: trackio asks the environment once where it writes
        pytest.skip(f"{name} is not installed")
    said = list[str]()
    written(tmp_path, configured(f"log.tracker={name}"), range(2), said)
    run = written(tmp_path, configured(f"log.tracker={name}"), range(2, 4), said)
    kept = b"".join(path.read_bytes() for path in run.tracker.rglob("*") if path.is_file())
    assert said == [] and b"s-0011aabb" in kept and b"grad_norm" in kept and SECRET.encode() not in kept
    if name == "mlflow":
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{run.tracker / 'mlflow.db'}")
        (record,) = client.search_runs([client.get_experiment_by_name("vidmae").experiment_id])
        assert [(point.step, point.value) for point in client.get_metric_history(record.info.run_id, "loss")] == [
            (step, 0.5) for step in (1, 2, 3, 4)]
