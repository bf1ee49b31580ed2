from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cancel, logs, pretrain, status, watch
from jobs.place.launch_flags import masked_argv
from jobs.standing.follow import Tail
from jobs.standing.runs import State, all_runs, find_run, process_birth
from jobs.submit.submission import standing
from sweeps.grid import fewshot_flags
from tests.support.launching import ROOT, cli, hear_ctrl_c, write_manifest, write_stand_in_profile
from vidmae.runs.nodes.check_log import note_checks
from vidmae.runs.record import RunFolder, read_json, write_json
from vidmae.settings.layers import ConfigError

LOCAL = ["--cluster", "local", "--recipe", "demo", "--gpus-per-node", "0", "--set", "data.workers=0",
         "--set", "train.global_batch=16", "--set", "train.phases=[{duration: 380 steps, lr: 2.5e-3}]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder with a manifest; jobs that a test leaves behind are ended."""
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_manifest(tmp_path / "manifests/demo.csv")
    yield tmp_path
    for run in all_runs(tmp_path / "runs"):
        cancel.main([str(run.path)])


def the_run(folder: Path) -> RunFolder:
    (path,) = (folder / "runs").iterdir()
    return RunFolder(path)


def launch(folder: Path, what: str, *more: str) -> subprocess.CompletedProcess[str]:
    return cli("pretrain.py", *LOCAL, "--profile", str(write_stand_in_profile(folder, what)), *more, cwd=folder)


FLAGS = {
    "pretrain.py": "-h --help --recipe --data --set --name --cluster --profile -N --nodes -p --partition -A --account -q --qos -t "
                   "--time --gpus-per-node --tasks-per-node --ntasks-per-node -c --cpus-per-task --mem -C --constraint -x "
                   "--exclude -w --nodelist -d --dependency -J --job-name --signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --wait --follow "
                   "--retry --checks --stage --profile-steps --runs-dir --json --print-config",
    "status.py": "-h --help --active --failed --runs-dir --watch --json",
    "logs.py": "-h --help --rank --job -n --tail -f --follow --runs-dir",
    "cancel.py": "-h --help --runs-dir",
    "watch.py": "-h --help --runs-dir --every --plain --once",
}


@pytest.mark.parametrize("script", FLAGS)
def test_the_flags_are_frozen(script: str) -> None:
    parser = {"pretrain.py": pretrain, "status.py": status, "logs.py": logs, "cancel.py": cancel, "watch.py": watch}[script].make_parser()
    assert set(parser._option_string_actions) == set(FLAGS[script].split())


def test_the_commands_in_the_help_are_parsed() -> None:
    for module in (pretrain, status, logs, cancel, watch):
        commands = [line.split("  ")[0] for line in re.findall(r"^    python jobs/\w+\.py(.*)$", module.__doc__ or "", re.M)]
        assert 2 <= len(commands) <= 5
        for command in commands:
            module.make_parser().parse_args(shlex.split(command.split(">")[0]))


def test_a_dry_run_prints_a_script_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = cli("pretrain.py", *LOCAL, "--dry-run", cwd=folder)
    assert done.returncode == 0 and done.stdout.startswith("#!/bin/bash\n")
    assert done.stderr.startswith("cluster: local (--cluster local)\n")
    for word in ("ranks", "batch", "lr 0.0025", "ZeRO 3", "64 videos", "PFLOP", "MALLOC_TRIM_THRESHOLD_"):
        assert word in done.stderr, word
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("args", "message"), [
    (["--nodes", "0"], "nodes is 0, allowed: 1 or more"),
    (["--nodes", "2"], "nodes is 2, allowed: 1 on this machine"),
    (["--partiton", "gpu"], "unknown argument '--partiton', did you mean --partition"),
    (["--recipe", "dmeo"], "no recipe 'dmeo', did you mean demo?"),
    (["--set", "train.globl_batch=3"], "did you mean train.global_batch"),
    (["--set", "train.global_batch=250", "--tasks-per-node", "8"], "do not divide train.global_batch 250; nearest batches: 248, 256"),
    (["--data", "dem"], "'dem' is not known, did you mean demo?; manifests/ has: demo"),
    (["--recipe", "finetune_demo"], "is for another command: python sweeps/fewshot.py --recipe finetune_demo"),
    (["--data", "s"], "python jobs/prepare.py manifest FOLDER --name s"),
    (["--set", "train.init=gone.pth"], "gone.pth, allowed: a weights file that exists"),
    (["--set", "model.name=mae_vit_mega_patch14"], "unknown model 'mae_vit_mega_patch14'"),
    (["--set", "train.device=cuda"], "train.device is cuda, but the job has no GPU"),
    (["--set", "train.precision=fp16"], "fp16, which needs a GPU"),
    (["--set", "train.micro_batch=auto"], "measures the memory of a GPU; on the CPU: a number of clips"),
    (["--set", "train.compile=graphs"], "graphs, which a CPU does not have; on the CPU: auto, true or false"),
    (["--set", "train.offload=optimizer", "--set", "train.zero_stage=0"], "ZeRO 1 to 3 can offload"),
    (["--set", "train.compile=true", "--set", "train.zero_stage=3"], "ZeRO 0 to 2 can compile"),
    (["--set", "train.micro_batch=0"], "train.micro_batch is 0, allowed: auto, or 1 or more clips"),
    (["--set", "train.deterministic=maybe"], "train.deterministic is 'maybe'"),
    (["--runs-dir", "a%j"], "holds a %"),
    (["--runs-dir", "manifests/demo.csv"], "is not a folder that you may write to"),
    (["--name", "../x"], "name is '../x'"),
    (["--time", "1h"], "'1h' is no time"),
    (["--mem", "lots"], "'lots' is no amount of memory"),
])
def test_what_cannot_run_is_refused_in_one_line(folder: Path, args: list[str], message: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = pretrain.main([*LOCAL, *args])
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    assert code == 2 and not out and not (folder / "runs").exists()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], err


def test_all_problems_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main([*LOCAL, "--set", "train.init=no", "--set", "train.precision=fp16", "--runs-dir", "a:b"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def test_a_manifest_of_no_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(folder / "manifests/demo.csv", videos=0)
    assert pretrain.main([*LOCAL, "--dry-run"]) == 2
    assert "manifest has 0 videos; make one with: python jobs/prepare.py" in capsys.readouterr().err


def test_what_may_be_a_mistake_is_said_before_submitting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder / "manifests/demo.csv"
    for name in ("here.mp4", "here.tar"):
        (folder / name).touch()
    rows = ("here.mp4", f"here.tar#{7:016x}", "gone.mp4", f"gone.tar#{7:016x}")  # two videos, two prepared recordings
    manifest.write_text("path,label\n" + "".join(f"{folder}/{row},\n" for row in rows))
    summary = json.loads(manifest.with_suffix(".json").read_text()) | {
        "csv_bytes": manifest.stat().st_size, "verified": False, "percentiles_s": [1.0] * 40 + [60.0] * 61}
    manifest.with_suffix(".json").write_text(json.dumps(summary))
    assert pretrain.main([*LOCAL, "--dry-run", "--set", "train.phases.0.duration=3 steps"]) == 0
    said = capsys.readouterr().err
    assert "2 of the first 4 videos of" in said and "gone" not in said
    assert "the run has 3 steps in all: 64 videos x 4 clips in batches of 16 make" in said
    assert "for many more videos" not in said
    assert f"{manifest} was made with --no-verify" in said
    assert "about 40% of the videos are shorter than a clip of " in said and "their last frame is repeated" in said


def test_epochs_that_are_few_steps_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe of 10,496 videos with a folder of 64."""
    assert pretrain.main([*LOCAL, "--dry-run", "--set", "train.phases=[{duration: 100 epochs}, {duration: 15 epochs}]"]) == 0
    said = capsys.readouterr().err
    assert "the run has 1840 steps in all: 64 videos x 4 clips in batches of 16 make 16 steps an epoch; 100 epochs + 15 epochs are for " in said


def test_a_dry_run_of_an_active_run_says_that_the_command_would_attach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(folder / "elsewhere/a-12345678")  # no real job is asked about or cancelled
    assert standing(run) == "", "a new run"
    run.path.mkdir(parents=True)
    write_json(run.record, {"submissions": [{"state": "submitted", "job_id": "7", "cluster": "slurm"}]})
    monkeypatch.setattr("jobs.submit.submission.states", lambda runs: ([State(run, "7", "slurm", "PENDING", True)], []))
    assert standing(run) == "; job 7 of this run is PENDING, and the command would attach to it"


def test_every_value_and_its_origin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "site.yaml").write_text("nodes: 1\nenv: {SECRET: hush}\nconfig:\n  train:\n    micro_batch: 2\n    zero_stage: 1\n")
    assert pretrain.main([*LOCAL, "--profile", "site.yaml", "--set", "train.zero_stage=3", "--name", "mine", "--print-config"]) == 0
    text = capsys.readouterr().out
    origins = dict(re.findall(r"^([\w.]+): .*?  # (.*)$", text, re.M))
    assert origins["name"] == "--name" and origins["train.zero_stage"] == "--set"
    assert origins["train.micro_batch"] == "profile site.yaml:5" and origins["nodes"] == "profile site.yaml:1"
    assert origins["train.clip_grad"].startswith("recipe demo.yaml:") and origins["seed"] == "default"
    assert origins["cpus_per_task"].startswith("this machine has") and "hush" not in text


def test_a_short_name_is_the_same_setting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for settings in (("lr=5e-5", "batch=32", "workers=1"), ("train.phases.0.lr=5e-5", "train.global_batch=32", "data.workers=1")):
        assert pretrain.main([*LOCAL, *(word for each in settings for word in ("--set", each)), "--print-config"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and re.search(r"^train\.global_batch: 32 +# --set$", texts[0], re.M)
    parser = fewshot_flags.make_parser("")  # what a cell records of its settings makes it another row of a table
    args = parser.parse_args(["--shots", "2", "--set", "batch=16", "--vary", "blr=1e-3,2e-3", "--set", "data.flip_prob=0"])
    assert (args.set, args.vary) == (["train.global_batch=16", "data.flip_prob=0"], ["train.phases.0.blr=1e-3,2e-3"])


def test_a_name_says_that_the_decoder_rebuilds_a_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables call a run by its name, so one of another objective cannot be taken for one of the paper's."""
    names = []
    for settings in ((), ("0.5",), ("0.75",), ("0.5", "--name", "mine-decoder50")):
        how = ["--set", f"model.decoder_mask_ratio={settings[0]}", *settings[1:]] if settings else []
        assert pretrain.main([*LOCAL, *how, "--print-config"]) == 0
        names.append(re.findall(r"^name: (\S+) +# (.*)$", capsys.readouterr().out, re.M))
    assert [name for (name, _), in names] == ["demo", "demo-decoder50", "demo-decoder25", "mine-decoder50"]
    assert pretrain.main([*LOCAL, "--set", "model.mask=tube", "--set", "model.temporal_positions=false", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "demo-tube-no-time-table-" in said and "kept (mask tube), no table of time" in said
    assert pretrain.main([*LOCAL, "--set", "model.t_patch_size=1", "--set", "model.mask=causal", "--name", "one-frame", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "one-frame-causal-" in said and "784 tokens, 78 kept (mask causal)" in said
    assert "model.decoder_mask_ratio, over recipe demo.yaml:" in names[1][0][1]


def test_a_run_from_submission_to_done(folder: Path) -> None:
    write_manifest(folder / "manifests/demo.csv", fraction={"of": "s", "share": 0.01})
    first = launch(folder, "ok", "--wait", "--json")
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout)
    run = the_run(folder)
    assert said == {"job_id": said["job_id"], "run": str(run.path), "state": "submitted", "cluster": "local",
                    "log": f"{run.submit}/{said['job_id']}/{said['job_id']}_0_log.out"}
    assert run.path.stat().st_mode & 0o777 == 0o700
    record = read_json(run.record) or {}
    assert record["videos"] == 64 and record["plan"]["total_steps"] == 380 and record["signature"] == run.path.name[-8:]
    assert record["fraction"] == {"of": "s", "share": 0.01}
    (submission,) = record["submissions"]
    assert submission["job_id"] == said["job_id"] and submission["state"] == "submitted"
    assert (json.loads((run.path / f"seen.{said['job_id']}.0.json").read_text()))["SITE_NOTE"] == 'it\'s "quoted" $HOME'

    again = launch(folder, "ok")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr.splitlines()[1:] == [f"done before: {run.result}"], "the plan of a run that is done helps nobody"
    assert "this run is done, and nothing would be submitted" in launch(folder, "ok", "--dry-run").stderr
    shown = cli("status.py", cwd=folder).stdout.splitlines()
    assert shown[0].split() == ["JOBID", "NAME", "ST", "TIME", "NODES", "STEP/TOTAL", "RESULT", "ETA", "GOOD", "WAIT",
                                "NODELIST(REASON)"]
    assert shown[1].split()[:3] == [said["job_id"], run.path.name, "CD"] and "10/10" in shown[1] and "0.2500" in shown[1]
    assert "stand-in rank 0: ok" in cli("logs.py", "demo", cwd=folder).stdout


def test_a_failed_run_wants_retry_and_says_why(folder: Path) -> None:
    failed = launch(folder, "fail:0:2", "--follow")
    assert failed.returncode == 1 and "rank 0: ValueError: asked to" in failed.stderr and "stand-in rank 0" in failed.stderr
    assert failed.stdout.strip().isdigit()
    refused = launch(folder, "ok")
    assert refused.returncode == 2 and "is FAILED" in refused.stderr and "--retry" in refused.stderr
    assert "--retry would continue it" in launch(folder, "ok", "--dry-run").stderr
    assert cli("status.py", cwd=folder).stdout.splitlines()[1].split()[2] == "F"
    write_json(the_run(folder).lock, {"job_id": failed.stdout.strip(), "host": socket.gethostname(), "pid": 2**22, "time": 1.0})
    retried = launch(folder, "ok", "--retry", "--wait")
    assert retried.returncode == 0, retried.stderr
    assert not the_run(folder).lock.exists() and len((read_json(the_run(folder).record) or {})["submissions"]) == 2
    assert cli("logs.py", "demo", "--job", failed.stdout.strip(), cwd=folder).stdout.startswith("submitit")


def test_one_job_for_two_launchers_at_once(folder: Path) -> None:
    write_stand_in_profile(folder, "hears")
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(launch(folder, "hears"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [d.returncode for d in done] == [0, 0, 0] and len({d.stdout for d in done}) == 1
    assert sorted("already active" in d.stderr for d in done) == [False, True, True]
    job = done[0].stdout.strip()
    assert [s["job_id"] for s in (read_json(the_run(folder).record) or {})["submissions"]] == [job]
    row = json.loads(cli("status.py", "--json", cwd=folder).stdout)
    assert (row["state"], row["active"], row["source"]) == ("RUNNING", True, "process")
    stopped = cli("cancel.py", "demo", cwd=folder)
    assert stopped.returncode == 0 and f"local job {job}" in stopped.stderr
    assert process_birth(int(job)) is None
    assert cli("status.py", cwd=folder).stdout.splitlines()[1].split()[2] == "CA"
    assert "nothing to cancel" in cli("cancel.py", "demo", cwd=folder).stderr


def test_ctrl_c_leaves_the_job_alone(folder: Path) -> None:
    profile = write_stand_in_profile(folder, "hears")
    launcher = subprocess.Popen([sys.executable, str(ROOT / "jobs/pretrain.py"), *LOCAL, "--profile", str(profile), "--follow"],
                                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                                preexec_fn=hear_ctrl_c)
    assert launcher.stdout and launcher.stderr
    job = int(launcher.stdout.readline())
    for line in launcher.stderr:
        if "stand-in rank 0" in line:
            break
    os.killpg(launcher.pid, signal.SIGINT)
    rest = launcher.stderr.read()
    assert launcher.wait(timeout=30) == 130 and "goes on" in rest and "Traceback" not in rest
    assert process_birth(job) is not None


def make_run(folder: Path, name: str, **submission: object) -> RunFolder:
    run = RunFolder(folder / "runs" / name)
    run.path.mkdir(parents=True)
    write_json(run.record, {"schema": 1, "submissions": [submission] if submission else []})
    return run


def test_what_a_user_may_call_a_run(folder: Path) -> None:
    make_run(folder, "s-vith14-11111111", job_id="501", cluster="slurm")
    make_run(folder, "s-vith14-22222222", job_id="502", cluster="slurm")
    make_run(folder, "say-33333333")
    runs = folder / "runs"
    assert find_run("say", runs).path.name == "say-33333333"
    assert find_run("s-vith14-1", runs).path.name == "s-vith14-11111111"
    assert find_run("502", runs).path.name == "s-vith14-22222222"
    assert find_run("runs/say-33333333", runs).path.name == "say-33333333"
    with pytest.raises(ConfigError, match="'s-vith14' fits 2 runs: s-vith14-11111111, s-vith14-22222222"):
        find_run("s-vith14", runs)
    with pytest.raises(ConfigError, match=r"no run 'sya' in .*there are 3"):
        find_run("sya", runs)


@pytest.mark.parametrize(("squeue", "sacct", "records", "expected"), [
    ("echo '7|RUNNING|1:00|2|a-1|cn[1-2]|x'", "exit 1", {}, ("RUNNING", True, "squeue")),
    ("echo '7|RUNNING|1:00|2|a-1|cn[1-2]|x'", "exit 1", {"result": {"steps": 5, "last_loss": 0.1}}, ("COMPLETED", False, "result.json")),
    ("", "echo '7|NODE_FAIL|1:00|2|0:0|cn1|a-1'", {}, ("NODE_FAIL", False, "sacct")),
    ("", "echo '7|COMPLETED|1:00|2|0:0|cn1|of-another-user'", {}, ("ENDED", False, "squeue: gone")),
    ("", "exit 1", {"failure": {"job_id": "7", "rank": 1, "error": "E", "message": "m"}}, ("FAILED", False, "failure.json")),
    ("", "exit 1", {"failure": {"job_id": "6", "rank": 1, "error": "E", "message": "m"}}, ("ENDED", False, "squeue: gone")),
    ("exit 1", "exit 1", {"heartbeat": {"job_id": "7", "age_s": 0, "host": "cn3"}}, ("RUNNING", True, "heartbeat.json")),
    ("exit 1", "exit 1", {"heartbeat": {"job_id": "7", "age_s": 700, "host": "cn3"}}, ("UNKNOWN", None, "nobody")),
    ("exit 1", "exit 1", {"heartbeat": {"job_id": "6", "age_s": 0}}, ("UNKNOWN", None, "nobody")),
])
def test_the_first_that_knows_says_the_state(folder: Path, monkeypatch: pytest.MonkeyPatch, squeue: str, sacct: str,
                                             records: dict[str, dict], expected: tuple[str, bool | None, str],
                                             capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(folder, "a-1", job_id="7", cluster="slurm", job_name="a-1")
    for name, record in records.items():
        ages = {"time": time.time() - record["age_s"]} if "age_s" in record else {}  # now: the table above is old by then
        write_json(run.path / f"{name}.json", {**record, **ages})
    for name, text in (("squeue", squeue), ("sacct", sacct)):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert status.main(["a-1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["state"], row["active"], row["source"]) == expected


def test_status_says_what_the_nodes_of_an_active_run_found(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(folder, "a-1", job_id="7", cluster="slurm", job_name="a-1")
    note_checks(run, {"mode": "warn", "action": "none", "findings": [], "left_out": []})
    found = [{"node": "cn3", "text": "copying memory 1 GB/s"}, {"node": "cn5", "text": "slow"}]
    note_checks(run, {"mode": "warn", "action": "warned", "findings": found, "left_out": []})
    with run.checks.open("a") as file:
        file.write('{"schema": 1, "mo')  # a line that a full disk has cut off
    write_json(run.heartbeat, {"job_id": "7", "time": time.time()})
    monkeypatch.setenv("PATH", "/nowhere")
    assert status.main(["a-1"]) == 0
    assert "a-1: before the first step: cn3: copying memory 1 GB/s, and 1 more (warned)" in capsys.readouterr().err
    assert status.main(["a-1", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert checks["findings"] == ["cn3: copying memory 1 GB/s", "cn5: slow"] and checks["action"] == "warned"


def test_status_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([]) == 0
    assert "no runs in runs; start one" in capsys.readouterr().err
    assert status.main(["--runs-dir", "nope"]) == 2 and "--runs-dir nope is not a folder" in capsys.readouterr().err
    assert status.main(["x"]) == 2 and cancel.main(["x"]) == 2 and logs.main(["x"]) == 2


@pytest.fixture
def three(folder: Path) -> list[RunFolder]:
    """A cell that is done, a run that failed, and one that was never submitted."""
    done, failed, new = (make_run(folder, name, **job) for name, job in (
        ("s-ssv2-11111111", {"job_id": "501", "cluster": "slurm"}), ("s-kin-22222222", {"job_id": "502", "cluster": "slurm"}),
        ("say-33333333", {})))
    write_json(done.result, {"steps": 24, "top1_pct": 54.16})
    write_json(failed.failure, {"job_id": "502", "rank": 1, "error": "ValueError", "message": "asked to"})
    return [done, failed, new]


@pytest.mark.parametrize(("argv", "shown"), [
    ([], [0, 1, 2]), (["--failed"], [1]), (["--active"], []), (["s-*"], [0, 1]), (["s-*", "--failed"], [1]), (["s-k?n-*"], [1])])
def test_which_runs_are_shown(three: list[RunFolder], argv: list[str], shown: list[int], capsys: pytest.CaptureFixture[str],
                              ) -> None:
    assert status.main(argv) == 0
    out, err = capsys.readouterr()
    assert {line.split()[1] for line in out.splitlines()[1:]} == {three[i].path.name for i in shown}
    assert ("ValueError: asked to" in err) == (1 in shown)
    if 0 in shown:
        assert "54.2 %" in out


def test_patterns_and_filters_that_fit_nothing(three: list[RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(three) == 3 and status.main(["x*"]) == 2
    assert "none of 3 runs in runs fits 'x*'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        status.main(["--active", "--failed"])


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_a_table_for_every_width(width: int) -> None:
    row = ("81234_17", "s-vith14-ssv2-10shot-seed0-finetune-1a2b3c4d", "R", "1-02:03:04", "8", "120000/339000", "0.1234",
           "2-00:00:00", "97%", "1%", "cn[001-008]")
    lines = status.table([status.HEADER, row], width)
    assert row[1] in lines[1] and row[5] in lines[1] and (width < 80 or max(map(len, lines)) <= width)
    assert (lines[1].split() == list(row)) == (width == 400)


def test_watching_ends_when_nothing_is_active(three: list[RunFolder], monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    write_json(three[2].record, {"submissions": [{"job_id": "503", "cluster": "slurm", "job_name": "x"}]})
    write_json(three[2].heartbeat, {"job_id": "503", "time": time.time(), "step": 1, "total_steps": 9})
    monkeypatch.setattr(status, "WATCH_S", 0.0)
    monkeypatch.setenv("PATH", "")  # a Slurm that answers, as that of other tests, knows no job 503: the run were over
    look, looks = status.look, iter([None, None, None, lambda: write_json(three[2].result, {"steps": 9, "last_loss": 0.5})])
    monkeypatch.setattr(status, "look", lambda args: ((next(looks) or (lambda: None))(), look(args))[1])
    assert status.main(["say*", "--watch"]) == 0
    out = capsys.readouterr().out
    assert out.count("JOBID") == 4 and "1/9" in out and out.splitlines()[-1].split()[2] == "CD"


def test_the_end_of_a_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(folder, "a-1", job_id="7", cluster="slurm")
    log = run.submit / "7/7_0_log.out"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\nthree\n")
    for number, expected in ((0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")):
        assert logs.main(["a-1", "--tail", str(number)]) == 0 and capsys.readouterr().out == expected
    assert logs.main(["a-1", "--tail", "-1"]) == 2 and "--tail -1 must be 0 or more" in capsys.readouterr().err


def test_a_log_is_read_line_by_line_as_it_grows(folder: Path) -> None:
    path = folder / "log"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b"one\ntw" + "ö".encode()[:1])
    assert tail.lines() == ["one"]
    with path.open("ab") as f:
        f.write("ö".encode()[1:] + b"\nend")
    assert tail.lines() == ["twö"] and tail.rest() == ["end"]
    path.write_text("a\nb\nc\n")
    assert Tail(path, last_lines=2).lines() == ["b", "c"]


def test_secrets_are_kept_out_of_the_record() -> None:
    argv = ["--set", "data.name=s", "--sbatch", "comment=x", "--set=api_key=abc", "WANDB_TOKEN=abc"]
    assert masked_argv(argv) == ["--set", "data.name=s", "--sbatch", "comment=x", "--set=api_key=***", "WANDB_TOKEN=***"]
