"""--notify: one line at the end and not before, nothing private in it, and the address of a webhook is nowhere to be read."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jobs import pretrain
from jobs.place.launch_flags import masked_argv
from jobs.place.notify_ways import Notify, problem_of, resolve
from jobs.place.profiles import read_site
from jobs.place.resources import Resources
from jobs.place.scheduler import slurm
from jobs.standing.arrays import make_array
from jobs.submit import launch, local_array, local_controller, notice, recover
from sweeps import fewshot
from tests.jobs.keeping.conftest import copy_run
from tests.support.labelled import write_labelled
from tests.support.launching import write_manifest
from vidmae.runs.record import RunFolder, make_private_folder, write_json
from vidmae.settings.layers import ConfigError

URL = "https://hooks.example/services/T0/s3cr3t"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The programs that are called here answer SIGTERM otherwise."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[bytes], list[int]]]:
    """A webhook on this machine: its address, what it was told, and what it answers."""
    told, answers = list[bytes](), [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(answers[-1])
            if answers[-1] == 302:
                self.send_header("Location", "http://elsewhere.example/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/s3cr3t", told, answers
        server.shutdown()


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is that of Slurm's job 7."""
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")


def lines(told: list[bytes]) -> list[str]:
    return [json.loads(body)["text"] for body in told]


def failed(run: RunFolder, job_id: str) -> None:
    write_json(run.failure, {"schema": 1, "job_id": job_id, "rank": 3, "kind": "error", "error": "ManifestError",
                             "message": "/home/anna/S_20130101.mp4 is damaged"})


@pytest.mark.usefixtures("job")
def test_a_run_tells_once_its_end_is_final(runs: Path, hook: tuple[str, list[bytes], list[int]], monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    url, told, answers = hook
    run = RunFolder(runs / "stopped-b17e30cc")
    make_private_folder(run.submit / "7")
    notice.keep_ways(run.submit, resolve([f"webhook:{url}"]), "slurm")
    run.failure.unlink(missing_ok=True)
    monkeypatch.setattr(recover, "requeue", lambda *_: True)
    monkeypatch.setattr(slurm, "job_state", lambda _: "PENDING")
    assert recover.main([str(run.path), "137"]) == 0 and told == [], "it was requeued"
    monkeypatch.setattr(slurm, "job_state", lambda _: "TIMEOUT")
    assert recover.main([str(run.path), "143"]) == 0, "Slurm ends it by itself"
    monkeypatch.setattr(recover, "requeue", lambda *_: False)
    assert recover.main([str(run.path), "137"]) == 75
    failed(run, "7")
    assert recover.main([str(run.path), "1"]) == 1
    (run.submit / "7/cancelled").touch()
    assert recover.main([str(run.path), "75"]) == 75
    write_json(run.result, {"steps": 1200, "last_loss": 0.43211, "top1_pct": 41.25})
    assert recover.main([str(run.path), "0"]) == 0
    assert lines(told) == [
        "stopped-b17e30cc: unfinished, 17 of 100 steps, 00:00:16 of work",
        "stopped-b17e30cc: failed (rank 0, Stopped), 17 of 100 steps, 00:00:16 of work",
        "stopped-b17e30cc: failed (rank 3, ManifestError), 17 of 100 steps, 00:00:16 of work",
        "stopped-b17e30cc: cancelled, 17 of 100 steps, 00:00:16 of work",
        "stopped-b17e30cc: done, 1,200 of 1,200 steps, top-1 41.25 %, loss 0.4321, 00:00:16 of work"]
    said = capsys.readouterr().out
    assert "told by webhook: stopped-b17e30cc: done" in said and "s3cr3t" not in said
    for answer in (404, 302):
        answers.append(answer)
        assert recover.main([str(run.path), "0"]) == 0
        said = capsys.readouterr().out
        assert f"warning: --notify webhook: it answered with HTTP {answer}" in said and "s3cr3t" not in said


def test_what_cannot_be_told_is_said_without_the_address_and_changes_nothing(runs: Path, capsys: pytest.CaptureFixture[str],
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(runs / "done-edd1b7a1")
    assert notice.post("http://127.0.0.1:9/s3cr3t", "x").startswith("it could not be reached (")
    assert "https" in notice.post("http://hooks.example/s3cr3t", "x") and "s3cr3t" not in notice.post("http://hooks.example/s3cr3t", "x")
    run.submit.joinpath("notify.json").write_text("{")
    notice.run_ended(run, "17021")
    notice.keep_ways(run.submit, resolve(["command:/no/such/program", "command:false"]), "slurm")
    notice.run_ended(run, "17021")
    said = capsys.readouterr().out
    def breaks(url: str, _: str) -> str:
        raise http.client.BadStatusLine("s3cr3t") if url.endswith("bad") else AssertionError

    monkeypatch.setattr(notice, "post", breaks)
    notice.keep_ways(run.submit, Notify(None, ("https://hooks.example/bad",), (("true",),)), "slurm")
    notice.run_ended(run, "17021")
    told = capsys.readouterr().out
    assert "webhook: it failed (BadStatusLine)" in told and "told by command: " in told and "s3cr3t" not in told
    assert "cannot be read" in said and "could not be started (No such file" in said and "exit code 1" in said


def test_a_program_gets_the_line_and_no_shell(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "told; touch bad"
    notice.keep_ways(runs / "done-edd1b7a1/submit", resolve([f"command:tee {shlex.quote(str(out))}"]), "slurm")
    notice.run_ended(RunFolder(runs / "done-edd1b7a1"), "17021")
    assert out.read_text() == "done-edd1b7a1: done, 4 of 4 steps, loss 0.8307, 00:00:05 of work\n" and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("last", [0, 1])
def test_an_array_tells_once_after_its_last_task(runs: Path, hook: tuple[str, list[bytes], list[int]], monkeypatch: pytest.MonkeyPatch,
                                                 last: int) -> None:
    url, told, _ = hook
    cells = [RunFolder(path.parent) for path in sorted(runs.glob("done-motion-*/run.json"))] + [copy_run(runs, "stopped-b17e30cc", "gone-1a2b3c4d")]
    array = make_array(runs / "arrays/20261129T101010-fewshot", cells)
    notice.keep_ways(array.submit, resolve([f"webhook:{url}"]), "slurm")
    for i in range(3):
        make_private_folder(array.submit / f"50_{i}")
        make_private_folder(cells[i].submit).joinpath(f"50_{i}").symlink_to(array.submit / f"50_{i}")
    failed(cells[1], "50_1")
    failed(cells[2], "50_2")
    queue = {"50_0", "50_1"}  # task 2 was killed with its node and says nothing
    monkeypatch.setattr(slurm, "queued", lambda ids=(), name=None: [
        slurm.Job(i, "x", "RUNNING", "", "1", "", None, "squeue") for i in queue])
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "50")
    for task in (1 - last, last, last):  # the last one a second time, as where two see that they are the last
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        assert bool(told) is (task == last and bool(told))
        assert recover.main([str(array.path), str(task)]) == (0, 1)[task]
    assert lines(told) == ["20261129T101010-fewshot: 1 done, 2 failed of 3 cells, top-1 10.83 to 10.83 %"]


def test_an_array_waits_for_tasks_of_which_nobody_knows(runs: Path, hook: tuple[str, list[bytes], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> list[slurm.Job]:
        raise slurm.SlurmError("no answer")

    monkeypatch.setattr(slurm, "queued", away)
    cells = [copy_run(runs, "stopped-b17e30cc", f"cell-0000000{i}") for i in range(2)]
    array = make_array(runs / "arrays/x", cells)
    notice.keep_ways(array.submit, resolve([f"webhook:{hook[0]}"]), "slurm")
    for i in range(2):
        make_private_folder(array.submit / f"50_{i}")
        notice.task_ended(array, f"50_{i}")
        assert len(hook[1]) == i


def test_jobs_of_this_machine_tell_too(runs: Path, hook: tuple[str, list[bytes], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(runs / "stopped-b17e30cc")
    notice.keep_ways(run.submit, resolve([f"webhook:{hook[0]}"]), "local")
    for name, value in {"LOCAL_NTASKS": "1", "LOCAL_COMMAND": "false", "LOCAL_TIMEOUT_S": "60", "LOCAL_SIGNAL_DELAY_S": "1",
                        "STDERR_TO_STDOUT": "1", "LOCAL_WITH_SHELL": ""}.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    folder = run.submit / str(os.getpid())
    folder.mkdir()
    (folder / "cancelled").touch()  # before it started, so nothing is run
    assert local_controller.control_local_job(str(run.submit / "%j")) == 130
    array = make_array(runs / "arrays/x", [run])
    notice.keep_ways(array.submit, resolve([f"webhook:{hook[0]}"]), "local")
    make_private_folder(array.submit / f"{os.getpid()}_0").joinpath("cancelled").touch()
    (run.submit / f"{os.getpid()}_0").symlink_to(array.submit / f"{os.getpid()}_0")
    local_array.control(array.path, max_parallel=1, first=0, gpus=[], limit=local_array.Limit(), fork=False)
    assert [line.partition(",")[0] for line in lines(hook[1])] == ["stopped-b17e30cc: cancelled", "x: 1 cancelled of 1 cells"]


def test_mail_is_slurms(tmp_path: Path) -> None:
    request = launch.Request(RunFolder(tmp_path / "s-1a2b3c4d"), "s", Resources("gpu", 1, 0, 1, 1, 1024, 60), True, 0)
    script = launch.batch_script(request, "slurm")
    mailed = launch.batch_script(replace(request, notify=Notify("anna@lab.example")), "slurm")
    assert "--mail" not in script
    assert set(mailed.splitlines()) - set(script.splitlines()) == {"#SBATCH --mail-type=END,FAIL", "#SBATCH --mail-user=anna@lab.example"}
    own = launch.batch_script(replace(request, notify=Notify("")), "slurm")
    assert set(own.splitlines()) - set(script.splitlines()) == {"#SBATCH --mail-type=END,FAIL"}
    assert launch.batch_script(replace(request, notify=Notify(None, (URL,), (("tell", "s3cr3t"),))), "slurm") == script


def test_the_address_is_in_one_file_that_only_the_owner_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_manifest(tmp_path / "manifests/demo.csv")
    monkeypatch.setattr(launch, "submit", lambda *_: str(os.getpid()))
    (tmp_path / "hook.txt").write_text(f"{URL}\n")
    monkeypatch.setenv("VIDMAE_WEBHOOK", URL)
    for number, way in enumerate((f"webhook:{URL}", "webhook:hook.txt", "webhook")):
        args = ["--recipe", "demo", "--cluster", "local", "--gpus-per-node", "0", "--name", f"n{number}", "--notify", way, "--notify", "command:tee x"]
        assert pretrain.main([*args, "--dry-run"]) == 0 and pretrain.main([*args, "--print-config"]) == 0 and pretrain.main(args) == 0
        out, err = capsys.readouterr()
        assert "s3cr3t" not in out + err
        (run,) = tmp_path.glob(f"runs/n{number}-*")
        told = [path for path in run.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
        assert told == [run / "submit/notify.json"] and told[0].stat().st_mode & 0o777 == 0o600
        assert json.loads(told[0].read_text()) == {"schema": 1, "webhooks": [URL], "commands": [["tee", "x"]]}


def test_an_array_keeps_the_address_in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_labelled(tmp_path / "manifests")
    monkeypatch.setattr(local_array, "start", lambda *_: str(os.getpid()))
    assert fewshot.main(["--recipe", "finetune_demo", "--shots", "2", "--seeds", "0", "--checkpoints", "scratch", "--cluster", "local",
                         "--gpus-per-node", "0", "--notify", f"webhook:{URL}", "--notify", "mail"]) == 0
    out, err = capsys.readouterr()
    assert "s3cr3t" not in out + err and "mail is sent by Slurm" in err
    told = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    (array,) = (tmp_path / "runs/arrays").glob("*-fewshot")
    assert told == [array / "submit/notify.json"] and told[0].stat().st_mode & 0o777 == 0o600


def test_what_is_recorded_of_a_command_names_nobody() -> None:
    argv = ["--nodes", "8", "--notify", f"webhook:{URL}", f"--notify=webhook:{URL}", "--notify", "mail:anna@lab.example", "--wait"]
    assert masked_argv(argv) == ["--nodes", "8", *["--notify=***"] * 3, "--wait"]
    inner = f"--notify webhook:{URL}"
    assert masked_argv(["--fewshot", f"{inner} --time 2:00", f"--fewshot={inner}", "--fewshot", f"--notify=webhook:{URL}", "--views", "1x1"]) == [
        "--fewshot", "'--notify=***' --time 2:00", "--fewshot='--notify=***'", "--fewshot", "--notify=***", "--views", "1x1"]
    assert "hooks" not in str(masked_argv([f"--x='--fewshot \"{inner}\"'", f"it's {inner}"]))


@pytest.mark.parametrize("way", ["", "slack", "mail:", "mail:anna", "mail:a@b c", "mail:-x@y", "webhook:", "webhook:http://hooks.example/s3cr3t",
                                 "webhook:ftp://hooks.example/s3cr3t", "webhook:https:///s3cr3t", "command:", "command:'"])
def test_a_way_that_cannot_be_is_refused_without_the_address(way: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([way])
    assert "--notify" in str(error.value) and "s3cr3t" not in str(error.value)


def test_a_profile_names_a_file_and_no_address(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"notify": ["mail", "webhook:~/.hook"]}))
    assert read_site(path).layers[0].values["notify"] == ["mail", "webhook:~/.hook"]
    path.write_text(yaml.safe_dump({"notify": [f"webhook:{URL}"]}))
    with pytest.raises(ConfigError, match="copied to the code of every run") as error:
        read_site(path)
    assert "s3cr3t" not in str(error.value)
    assert problem_of("http://localhost:80/x") == "" == problem_of(URL)
