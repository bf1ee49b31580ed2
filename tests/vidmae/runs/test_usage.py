"""What jobs have used, against sums by hand; and the counters of GPUs, with a stand-in for the driver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pynvml
import pytest

from vidmae.runs.attempts import AttemptLog, read_attempts
from vidmae.runs.gpus import GPUS
from vidmae.runs.nodes.gpu_counter import EnergyMeter
from vidmae.runs.nodes.usage import ESTIMATE, NVML, SLURM, Rates, Use, said_of_energy, spent, uses_of
from vidmae.runs.record import RunFolder

JOB = {"state": "submitted", "job_id": "7", "cluster": "slurm", "job_name": "s", "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4,
       "cpus_per_task": 8, "gpu_type": "a100", "submitted_at_s": 900.0}
HOUR = 3600.0


def attempt(job_id: str, started: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {"job_id": job_id, "restart": 0, "started": started, "updated": started + seconds, **more}


def make_run(path: Path, submissions: list[dict[str, Any]], attempts: list[dict[str, Any]], **records: Any) -> RunFolder:
    run = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    run.record.write_text(json.dumps({"schema": 1, "kind": "pretrain", "submissions": submissions}))
    run.attempts.write_text(json.dumps({"schema": 1, "attempts": attempts}))
    for name, record in records.items():
        (path / f"{name}.json").write_text(json.dumps(record))
    return run


def test_hours_of_every_job_and_of_every_start(tmp_path: Path) -> None:
    later = {**JOB, "job_id": "9", "nodes": 1, "array": "/somewhere/arrays/20261124T101701-fewshot", "pue": 1.2}
    run = make_run(tmp_path, [{**JOB, "job_id": None}, JOB, later, {**JOB, "job_id": "11"}],
                   [attempt("7", 1000, 2 * HOUR), attempt("7", 20_000, HOUR), attempt("9", 40_000, 0.5 * HOUR)])
    first, second = uses_of(run)
    assert (first.job_id, first.started, first.seconds, first.gpus, first.cores, first.gpu) == ("7", 1000, 3 * HOUR, 8, 64, "a100")
    assert (second.seconds, second.gpus, second.sweep, second.rates) == (0.5 * HOUR, 4, "20261124T101701-fewshot", Rates(pue=1.2))
    found = spent([first, second], Rates())
    assert (found.jobs, found.gpu_h, found.core_h) == (2, 3 * 8 + 0.5 * 4, 3 * 64 + 0.5 * 32)


def test_a_cell_without_attempts_has_the_time_of_its_end_or_of_its_result(tmp_path: Path) -> None:
    local = {**JOB, "cluster": "local", "gpus_per_node": 0, "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 2}
    run = make_run(tmp_path / "a", [{**local, "job_id": "5_0"}], [])
    (run.submit / "5_0").mkdir(parents=True)
    (run.submit / "5_0" / "exit.json").write_text(json.dumps({"exit_code": 1, "started": 1000.0, "time": 1060.0}))
    assert [(use.seconds, use.gpus, use.cores, use.gpu) for use in uses_of(run)] == [(60.0, 0, 2, "a100")]
    probe = make_run(tmp_path / "b", [local, {**local, "job_id": "8"}], [], result={"job_id": "8", "train_s": 20.0, "eval_s": 5.0})
    assert [(use.job_id, use.seconds) for use in uses_of(probe)] == [("8", 25.0)]
    trained = make_run(tmp_path / "c", [local], [attempt("7", 0, 30)], result={"job_id": "7", "train_s": 500.0})
    assert [use.seconds for use in uses_of(trained)] == [30.0], "train_s is that of all jobs of a run"
    by_hand = make_run(tmp_path / "d", [], [attempt("pid5", 0, 30, ranks=3, gpu="NVIDIA H100 80GB HBM3")])
    assert [(use.gpus, use.cores) for use in uses_of(by_hand)] == [(3, 3)]
    (tmp_path / "c" / "attempts.json").write_text('{"attempts": [{"job": 1}]}')
    with pytest.raises(ValueError, match="damaged"):
        uses_of(trained)


def test_energy_is_measured_by_slurm_else_by_nvml_else_estimated() -> None:
    use = Use("7", 0, 2 * HOUR, gpus=8, cores=64, gpu="NVIDIA A100-SXM4-80GB")
    board_kwh = 8 * GPUS["A100"].board_w * 2 / 1000
    found = spent([use], Rates())
    assert (found.kwh, found.by, found.measured_pct, found.co2_kg) == (pytest.approx(board_kwh), (ESTIMATE,), 0, None)
    assert found.without == ("CO2: the profile has no co2_g_per_kwh",)
    cores_kwh = 64 * 5 * 2 / 1000
    found = spent([use], Rates(co2_g_per_kwh=400, pue=1.5, watts_per_core=5, gpu_power_pct=50))
    assert (found.kwh, found.co2_kg, found.without) == (pytest.approx(board_kwh / 2 + cores_kwh), pytest.approx(0.6 * (board_kwh / 2 + cores_kwh)), ())
    nvml = Use(**{**vars(use), "energy_j": 7.2e6, "energy_s": HOUR, "energy_by": NVML})  # 2 kWh in the first of two hours
    found = spent([nvml], Rates(co2_g_per_kwh=100))
    assert (found.kwh, found.by, found.measured_pct, found.co2_kg) == (pytest.approx(4.0), (NVML,), 50, pytest.approx(0.4))
    assert found.without[0].startswith("cooling: the profile has no pue")
    assert said_of_energy(found) == "4 kWh (by NVML; 50 % of the time measured), 0.4 kg of CO2"
    slurm = Use(**{**vars(use), "energy_j": 18e6, "energy_s": 2 * HOUR, "energy_by": SLURM})
    assert spent([slurm], Rates(watts_per_core=5)).kwh == pytest.approx(5.0), "of whole nodes, so cores are in it"
    both = spent([slurm, use], Rates(co2_g_per_kwh=400, pue=1.0))
    assert (both.by, both.kwh, both.measured_pct) == ((SLURM, ESTIMATE), pytest.approx(5 + board_kwh), pytest.approx(50))


def test_what_is_not_known_is_named_and_not_invented() -> None:
    on_cpu, unknown = Use("1", 0, HOUR, 0, 4), Use("2", 0, HOUR, 2, 4, gpu="Imaginary 9000")
    found = spent([on_cpu, unknown], Rates(co2_g_per_kwh=400, pue=1.0))
    assert (found.kwh, found.co2_kg, found.by) == (None, None, ()) and said_of_energy(found) == ""
    assert found.without == ("energy of 2.0 GPU-hours: the kind of GPU is not known",
                             "energy of 4.0 core-hours on CPUs: the profile has no watts_per_core")
    assert spent([on_cpu], Rates(watts_per_core=10)).kwh == pytest.approx(0.04)
    recorded = Use(**{**vars(on_cpu), "rates": Rates(watts_per_core=20)})
    assert spent([recorded], Rates()).kwh == pytest.approx(0.08) and spent([recorded], Rates(watts_per_core=10)).kwh == pytest.approx(0.04)
    assert spent([], Rates()).kwh is None


class Driver:
    """Stands for the driver below pynvml, whose own errors it raises."""

    millijoules, counts = 5000, True

    def handle(self, uuid: str) -> int:
        if uuid != "GPU-ab":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return 3

    def energy(self, handle: int) -> int:
        if not self.counts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.millijoules * (handle == 3)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", found.handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", found.energy)
    return found


def test_the_counters_of_all_gpus_are_written_down(driver: Driver, tmp_path: Path) -> None:
    said, asked = list[str](), list[list[float]]()

    def of_two_ranks(values: Any) -> list[float]:
        asked.append(list(values))
        return [values[0] + 20.0, values[1] + 1]

    log = AttemptLog(RunFolder(tmp_path), started=0.0, reached=0, ranks=2, gpu="NVIDIA A100-SXM4-80GB")
    meter = EnergyMeter("ab", 2, said.append)
    driver.millijoules = 47_000
    meter.note(of_two_ranks, log)
    log.write()
    now, = read_attempts(RunFolder(tmp_path))
    assert (now.energy_j, now.ranks, now.gpu, said) == (62.0, 2, "NVIDIA A100-SXM4-80GB", []) and 0 < now.energy_s < 60
    driver.counts = False
    meter.note(of_two_ranks, log)
    assert said == ["the energy of 1 of 2 GPUs is not measured: NVML says Not Supported"] and log.now.energy_j == 62.0
    meter.note(of_two_ranks, log)
    assert len(asked) == 2 and len(said) == 1, "said once, and nobody waits for a sum any more"


@pytest.mark.parametrize(("uuid", "why"), [("cd", "Not Found"), ("ab", "NVML Shared Library Not Found")])
def test_a_gpu_that_cannot_be_asked_is_no_error(uuid: str, why: str, driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    if uuid == "ab":
        monkeypatch.setattr(pynvml, "nvmlInit", missing)
    log, said = AttemptLog(RunFolder(tmp_path), started=0.0, reached=0), list[str]()
    EnergyMeter(uuid, 1, said.append).note(list, log)
    assert said == [f"the energy of 1 of 1 GPUs is not measured: NVML says {why}"] and log.now.energy_s == 0


def test_on_cpus_nobody_waits_for_a_sum(tmp_path: Path) -> None:
    def never(values: Any) -> list[float]:
        raise AssertionError("a collective")

    EnergyMeter("", 2, print).note(never, AttemptLog(RunFolder(tmp_path), started=0.0, reached=0))
