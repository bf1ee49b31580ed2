"""The sweep as a user types it: on this machine with stand-ins for cells, and against programs that stand in for Slurm."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs import cancel
from jobs.place.scheduler import slurm
from jobs.place.snapshot import CodeState, take_snapshot
from jobs.standing import arrays
from jobs.standing.runs import all_runs, find_run, states
from jobs.submit import local_array
from jobs.submit.launch import Cell
from sweeps import fewshot
from tests.support.labelled import write_labelled
from tests.support.launching import CELL_STAND_IN, ROOT, cli, hear_ctrl_c, write_cell_profile, write_program
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json

SCRIPT = "sweeps/fewshot.py"
GRID = ["--recipe", "finetune_demo", "--checkpoints", "scratch"]
LOCAL = [*GRID, "--cluster", "local"]
FLAGS = ("-h --help --shots --fractions --checkpoints --data --seeds --method --select --views --recipe --set --vary --allow-fewer --shot-list --prepare "
         "--cluster --profile -N --nodes -p --partition -A --account -q --qos -t --time --gpus-per-node --tasks-per-node "
         "--ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude -w --nodelist -d --dependency -J --job-name "
         "--signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --max-parallel --retry --after --wait --watch --then-collect "
         "--runs-dir --out --json --print-config")


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with a labelled data set; cells that a test leaves behind are ended."""
    write_labelled(own_folder / "manifests")
    return own_folder


def sweep(folder: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return cli(SCRIPT, *args, cwd=folder, env=env)


def cells(folder: Path) -> dict[str, RunFolder]:
    return {run.path.name[:-9]: run for run in all_runs(folder / "runs")}


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(fewshot.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/fewshot\.py(.*)$", fewshot.__doc__ or "", re.M)
    assert 2 <= len(commands) <= 3
    for command in commands:
        fewshot.make_parser().parse_args(shlex.split(command))


def test_a_dry_run_shows_the_grid_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = sweep(folder, *LOCAL, "--shots", "2,all", "--method", "finetune,knn", "--dry-run")
    assert done.returncode == 0 and subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0
    assert "--first 3" in done.stdout, "a cell of knn for each seed's random weights leaves the features to the others"
    line = next(line for line in done.stderr.splitlines() if line.split()[:4] == ["scratch", "toys", "finetune", "2"])
    assert line.split()[4:9] == ["3", "0", "0", "0", "3"] and "nothing was written" in done.stderr
    told = json.loads(sweep(folder, *LOCAL, "--shots", "2", "--dry-run", "--json").stdout)
    assert [(cell["state"], cell["submit"], cell["steps"]) for cell in told["cells"]] == [("new", True, 8)] * 3
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("args", "said"), [
    (["--shots", "2,x"], "not a whole number"), (["--shots", "13"], "fewer than 13 different clips"),
    (["--shots", "2", "--method", "svm"], "no method"), (["--shots", "2", "--data", "nowhere"], "nowhere"),
    (["--shots", "2", "--checkpoints", "nothing"], "no run 'nothing'"), (["--shots", "2", "--set", "seed=1"], "--seeds"),
    (["--shots", "2", "--select", "val-best", "--set", "train.glob=1"], "did you mean train.global_batch"),
    (["--shots", "2", "--gpus-per-node", "2"], "one GPU at most"), (["--shots", "2", "--max-parallel", "0"], "not 1 or more"),
    (["--shots", "2", "--views", "3x2"], "evaluate.views"), (["--shots", "2", "--then-collect"], "needs Slurm"),
    (["--shots", "2", "--set", "model.img_size=100"], "img_size 100"),
    (["--shots", "2", "--set", "train.micro_batch=auto"], "measures the memory of a GPU"),
    (["--shots", "2", "--vary", "train.precision=bf16,fp16"], "train.precision is fp16, which needs a GPU"),
    (["--shots", "2", "--set", "data.decoder=pyav"], "was checked with others: 36 with decord"),
    (["--shotz", "2"], "--shots")])
def test_what_cannot_run_is_refused(folder: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = fewshot.main([*LOCAL, *args])
    except SystemExit as left:
        code = int(str(left.code))
    told = capsys.readouterr()
    assert code == 2 and said in told.err and told.out == "" and not all_runs(folder / "runs"), told.err


def test_one_class_is_refused_before_anything_is_submitted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(folder / "manifests", "dogs", classes=("dog",))
    assert fewshot.main([*LOCAL, "--shots", "2", "--data", "dogs"]) == 2
    told = capsys.readouterr()
    assert "2 classes or more" in told.err and told.out == "" and not all_runs(folder / "runs")


def test_sizes_that_a_file_does_not_say_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {"patch_embed.proj.weight": (96, 3, 2, 16, 16), **{f"blocks.{i}.norm1.bias": (96,) for i in range(3)}}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "jepa.safetensors")
    args = ["--recipe", "finetune_demo", "--checkpoints", "jepa.safetensors,scratch", "--cluster", "local", "--shots", "2", "--dry-run"]
    assert fewshot.main(args) == 0
    said = "jepa: 256 px, 64 frames: taken as in the released models, the file does not say"
    assert capsys.readouterr().err.count(said) == 1


def test_every_setting_of_a_cell_and_its_origin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fewshot.main([*LOCAL, "--shots", "2,10", "--set", "train.layer_decay=0.5", "--print-config"]) == 0
    text = capsys.readouterr().out
    origins = dict(re.findall(r"^([\w.]+): .*?  # (.*)$", text, re.M))
    assert text.startswith("# cell 1 of 6: scratch-toys-2shot-seed0-finetune-")
    assert origins["train.layer_decay"] == "--set" and origins["data.manifest"] == "the sweep"
    assert origins["model.img_size"].startswith("recipe finetune_demo.yaml:") and origins["select.rule"] == "default"
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(("typed", "kept"), [
    ("x --retry failed --shots 2", "x --shots 2"), ("x --retry --shots 2", "x --shots 2"), ("x --retry", "x"),
    ("x --retry=oom --wait", "x")])
def test_what_to_type_next_submits_nothing_again(typed: str, kept: str) -> None:
    assert fewshot._without_retry(typed.split()) == kept.split()


def test_from_submission_over_a_failure_to_done(folder: Path) -> None:
    profile = str(write_cell_profile(folder, FAILS="-2shot-seed1-", PAUSE_S="0.3"))
    grid = [*LOCAL, "--profile", profile, "--shots", "2,10", "--seeds", "0,1", "--max-parallel", "2"]
    first = sweep(folder, *grid, "--wait")
    assert first.returncode == 1 and "3 of 4 cells are done" in first.stderr, first.stderr
    array = first.stdout.strip()
    assert array.isdigit() and len(cells(folder)) == 4
    for run in cells(folder).values():
        job = (read_json(run.record) or {})["submissions"][-1]["job_id"]
        seen = json.loads((run.path / f"seen.{job}.json").read_text())
        assert job.split("_")[0] == array and seen["file"] == str((run.code / "vidmae/train/cell.py").resolve()) and not seen["torch"]
        assert (run.submit / job / f"{job}_0_log.out").is_file() and find_run(job, folder / "runs").path == run.path
    again = sweep(folder, *grid)
    assert again.returncode == 1 and again.stdout == "" and "nothing to submit: 3 done, 1 failed" in again.stderr
    assert "rank 0: ValueError: asked to" in again.stderr and "--retry failed" in again.stderr
    assert sweep(folder, *grid, "--retry", "timeout").stdout == "", "it failed, and did not run out of time"
    write_cell_profile(folder)
    retried = sweep(folder, *grid, "--watch", "--json", "--retry")
    assert retried.returncode == 0 and "4 of 4 cells are done" in retried.stderr, retried.stderr
    told = json.loads(retried.stdout)
    assert [cell["submit"] for cell in told["cells"]].count(True) == 1 and len(told["arrays"]) == 1
    counts = {name: len((read_json(run.record) or {})["submissions"]) for name, run in cells(folder).items()}
    assert counts.pop("scratch-toys-2shot-seed1-finetune") == 2 and set(counts.values()) == {1}
    last = sweep(folder, *grid)
    assert (last.returncode, last.stdout) == (0, "") and "nothing to submit: 4 done" in last.stderr


def test_cells_on_this_machine_take_turns_and_can_be_cancelled(folder: Path) -> None:
    profile = str(write_cell_profile(folder, HEARS="-2shot-seed0-"))
    (folder / "say.pth").write_bytes(b"weights")
    grid = ["--recipe", "finetune_demo", "--checkpoints", "say.pth", "--cluster", "local", "--profile", profile, "--shots", "2",
            "--seeds", "0,1,2", "--method", "knn", "--max-parallel", "2"]
    done = sweep(folder, *grid)
    assert done.returncode == 0, done.stderr
    runs = cells(folder)
    sleeper = runs["say-toys-2shot-seed0-knn"]

    def state_of(run: RunFolder) -> str:
        return states([run])[0][0].state

    deadline = time.monotonic() + 20
    while state_of(sleeper) != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    assert state_of(runs["say-toys-2shot-seed2-knn"]) == "PENDING", "the first extracts the features that they share"
    second = sweep(folder, *grid)
    assert (second.returncode, second.stdout) == (0, "") and "nothing to submit: 3 active" in second.stderr
    assert cancel.main([sleeper.path.name]) == 0
    watched = sweep(folder, *grid, "--watch")
    assert watched.returncode == 1 and "2 of 3 cells are done" in watched.stderr
    assert state_of(sleeper) == "CANCELLED" and "missing: say-toys-2shot-seed0-knn" in watched.stderr
    third = sweep(folder, *grid, "--retry", "missing", "--seeds", "0,3,4", "--max-parallel", "1").stdout.strip()
    assert cancel.main([third]) == 0, "a whole array"
    assert {state_of(run) for name, run in cells(folder).items() if name[-5] in "034"} == {"CANCELLED"}


def test_cells_share_the_gpus_and_end_at_their_limit(tmp_path: Path) -> None:
    runs = [RunFolder(make_private_folder(tmp_path / f"runs/cell{i}-0000000{i}")) for i in range(4)]
    for run in runs:
        write_json(run.record, {"name": run.path.name, "cell": {}, "commit": None, "dirty": False})
    array = arrays.make_array(tmp_path / "runs/arrays/a", runs)
    take_snapshot(array, CodeState(None, False))
    (array.code / "vidmae/train/cell.py").write_text(CELL_STAND_IN)
    env = {**os.environ, "PYTHONPATH": str(array.code), "SLEEPS": "cell3", "PAUSE_S": "0.5"}
    process = subprocess.Popen([sys.executable, "-m", "jobs.submit.local_array", str(array.path), "--max-parallel", "2", "--gpus", "3,5",
                                "--limit-s", "3", "--python", f"env SLURMD_NODENAME=image {sys.executable}"], cwd=array.code, env=env)
    assert process.wait(timeout=60) == 0
    seen = [json.loads((run.path / f"seen.{process.pid}_{i}.json").read_text()) for i, run in enumerate(runs[:3])]
    assert {s["CUDA_VISIBLE_DEVICES"] for s in seen} == {"3", "5"}
    assert {s["SLURMD_NODENAME"] for s in seen} == {"image"}, "the profile's Python starts the cells"
    a, b = sorted(seen, key=lambda s: s["began"])[:2]
    assert b["began"] < a["ended"] and a["CUDA_VISIBLE_DEVICES"] != b["CUDA_VISIBLE_DEVICES"], "two at a time, a GPU each"
    codes = [(read_json(array.submit / f"{process.pid}_{i}/exit.json") or {})["exit_code"] for i in range(4)]
    assert codes == [0, 0, 0, 124]


def codes_of(array: RunFolder, cells: int) -> list[int]:
    return [(read_json(array.submit / f"{os.getpid()}_{i}/exit.json") or {})["exit_code"] for i in range(cells)]


def test_a_cell_that_cannot_be_started_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = arrays.make_array(tmp_path / "runs/arrays/a", [RunFolder(tmp_path / f"runs/cell{i}") for i in range(2)])
    write_program(tmp_path / "bin", "python", f"echo \"$@\" > '{tmp_path}/words'")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SITE", "of site")
    start, calls = subprocess.Popen, iter([True, False])

    def starved(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        if next(calls, False):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(*args, **more)

    monkeypatch.setattr(local_array.subprocess, "Popen", starved)
    how: dict[str, Any] = {"max_parallel": 1, "first": 0, "gpus": [], "limit": local_array.Limit(), "fork": False}
    local_array.control(array.path, **how, python="~/bin/python $SITE")
    assert codes_of(array, 2) == [127, 0]
    (log,) = (array.submit / f"{os.getpid()}_0").glob("*_log.out")
    assert "could not be started by python '~/bin/python $SITE' of the cluster profile" in log.read_text()
    words = (tmp_path / "words").read_text().split()
    assert words[:3] == ["of", "site", "-u"] and words[-1] == str(tmp_path / "runs/cell1"), "a shell command, as on the cluster"
    local_array.control(array.path, **how, python="/none/python")
    assert codes_of(array, 2) == [127, 127] and "python of the cluster profile: line 1: /none/python: No such file" in log.read_text()


def test_a_cell_that_is_killed_starts_again_in_its_place(tmp_path: Path) -> None:
    runs = [RunFolder(make_private_folder(tmp_path / f"runs/cell{i}")) for i in range(2)]
    array = arrays.make_array(tmp_path / "runs/arrays/a", runs)
    write_program(tmp_path / "bin", "python", 'for cell; do :; done; echo "$VIDMAE_RESTARTED" >> "$cell/starts"\n'
                                              'case "$(wc -l < "$cell/starts") $cell" in 1*|*cell1) kill -9 $$; esac; exit 0')
    local_array.control(array.path, max_parallel=1, first=0, gpus=[], limit=local_array.Limit(), fork=False,
                        python=str(tmp_path / "bin/python"), max_restarts=3)
    assert codes_of(array, 2) == [0, -9]
    assert [(run.path / "starts").read_text() for run in runs] == ["\nit was killed\n", "\n" + 3 * "it was killed\n"]
    assert "starts again in its place (1 of 3 times)" in (array.submit / f"{os.getpid()}_0/{os.getpid()}_0_0_log.out").read_text()


def test_ctrl_c_while_the_libraries_load_is_an_end_of_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = arrays.make_array(tmp_path / "runs/arrays/a", [RunFolder(tmp_path / f"runs/cell{i}") for i in range(2)])

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local_array, "load_programs", interrupted)
    local_array.control(array.path, max_parallel=1, first=0, gpus=[], limit=local_array.Limit(), fork=True)
    assert codes_of(array, 2) == [130, 130]


def test_ctrl_c_leaves_the_cells_alone(folder: Path) -> None:
    profile = str(write_cell_profile(folder, HEARS="-2shot-"))
    watching = subprocess.Popen([sys.executable, str(ROOT / SCRIPT), *LOCAL, "--profile", profile, "--shots", "2", "--seeds", "0",
                                 "--watch"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=hear_ctrl_c)
    assert watching.stdout and watching.stderr
    while "1 running" not in watching.stderr.readline():
        assert watching.poll() is None
    watching.send_signal(2)
    _, err = watching.communicate(timeout=20)
    assert watching.returncode == 130 and "the cells go on" in err and "Traceback" not in err
    (run,) = cells(folder).values()
    assert states([run])[0][0].state == "RUNNING"


def slurm_env(folder: Path, *, sbatch: str = "", squeue: str = "", most: int = 1001) -> dict[str, str]:
    """An environment with programs that answer as Slurm's do; sbatch keeps every script that it gets."""
    programs = folder / "bin"
    number = f"n=$(ls '{folder}'/job.* 2>/dev/null | wc -l); n=$((n + 101))"
    write_program(programs, "sbatch", f"{number}; [ \"$1\" = --test-only ] && exit 0; cp \"$1\" '{folder}'/job.$n; {sbatch}\n"
                                      'echo "Submitted batch job $n"')
    write_program(programs, "squeue", squeue or "exit 0")
    write_program(programs, "sinfo", 'case "$*" in *%P*) echo "gpu*|up|2-00:00:00|infinite|4|32|256000|idle|gpu:a100:4";; '
                                     "*) echo gpu;; esac")
    write_program(programs, "scontrol", f"echo 'ClusterName = fake'; echo 'MaxArraySize = {most}'")
    for name in ("srun", "sacct"):
        write_program(programs, name, "exit 0")
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def script_flags(folder: Path) -> list[dict[str, str]]:
    """The sbatch options of every script that was submitted, in order."""
    found = []
    for path in sorted(folder.glob("job.*")):
        words = [shlex.split(line)[1] for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
        found.append({word.partition("=")[0]: word.partition("=")[2] for word in words})
    return found


def test_a_thousand_cells_are_a_handful_of_calls_and_seconds(folder: Path) -> None:
    env = slurm_env(folder, most=501)
    decays = ",".join(f"{i / 1000}" for i in range(1, 101))
    args = [*GRID, "--shots", "2,10", "--seeds", "0,1,2,3,4", "--vary", f"train.weight_decay={decays}", "--max-parallel", "16"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cli(SCRIPT, *args, cwd=folder, env=env, anew=True)  # a child of this process, whose CPU time is known
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and done.stdout.split() == ["101", "102"], done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert [flags["--array"] for flags in script_flags(folder)] == ["0-500%16", "0-498%16"], "chunks of MaxArraySize"
    runs = all_runs(folder / "runs")
    jobs = {run.path: (read_json(run.record) or {})["submissions"][-1]["job_id"] for run in runs}
    assert len(set(jobs.values())) == 1000
    for array in (folder / "runs/arrays").iterdir():
        task, run = 17, arrays.cells_of(array)[17]
        job = jobs[run.path]
        assert job.endswith(f"_{task}") and (run.submit / job).resolve() == (array / "submit" / job).resolve()
        assert (array / f"submit/{job}/{job}_submitted.pkl").read_bytes().count(str(run.path).encode()) == 1
        assert (run.code / "vidmae/runs/record.py").is_file() and (array / "code/sweeps/grid/grid.py").is_file()


def test_arrays_ask_for_one_gpu_and_probes_wait_for_the_first_of_them(folder: Path) -> None:
    env = slurm_env(folder)
    (folder / "say.pth").write_bytes(b"weights")
    done = sweep(folder, *GRID[:2], "--checkpoints", "say.pth", "--shots", "2,10", "--method", "finetune,knn", "--set", "train.device=auto", "--time", "60", "-d",
                 "afterok:7", "--then-collect", env=env)
    assert done.returncode == 0 and done.stdout.split() == ["101", "102", "103", "104"], done.stderr
    lead, trained, rest, collect = script_flags(folder)
    assert (lead["--array"], trained["--array"], rest["--array"]) == ("0-0%1", "0-5%6", "0-4%5")
    assert {flags["--gpus-per-node"] for flags in (lead, trained, rest)} == {"1"} and trained["--cpus-per-task"] == "8"
    assert trained["--dependency"] == "afterok:7" and rest["--dependency"] == "afterok:7,afterany:101"
    assert rest["--kill-on-invalid-dep"] == "yes" and trained["--output"].endswith("/submit/%A_%a/%A_%a_0_log.out")
    assert collect["--dependency"] == "afterany:101:102:103" and "--array" not in collect and "--gpus-per-node" not in collect
    text = (folder / "job.102").read_text()
    assert f"jobs.submit.recover {folder}/runs/arrays/" in text and "jobs.submit.recover" not in (folder / "job.104").read_text()
    assert "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}/exit_code" in text


def test_what_slurm_refuses_leaves_no_array(folder: Path) -> None:
    refused = sweep(folder, *GRID, "--shots", "2", env=slurm_env(folder, sbatch="echo 'Invalid account' >&2; exit 1"))
    assert refused.returncode == 4 and "refused" in refused.stderr and refused.stdout == ""
    assert not [path for path in (folder / "runs/arrays").iterdir() if not path.name.startswith(".")]
    assert [(read_json(run.record) or {})["submissions"] for run in all_runs(folder / "runs")] == [[], [], []]
    accepted = sweep(folder, *GRID, "--shots", "2", env=slurm_env(folder))
    assert accepted.returncode == 0 and len(accepted.stdout.split()) == 1


def test_an_array_whose_submission_was_not_answered_is_found_again(folder: Path) -> None:
    lost = sweep(folder, *GRID, "--shots", "2", env=slurm_env(folder, sbatch="echo 'Unable to contact slurm controller' >&2; exit 1"))
    assert lost.returncode == 4 and "not answered" in lost.stderr
    (array,) = [path for path in (folder / "runs/arrays").iterdir() if not path.name.startswith(".")]
    rows = "; ".join(f"echo '55_{i}|RUNNING|1:00|1|{array.name}|cn1|{array}'" for i in range(3))
    found = sweep(folder, *GRID, "--shots", "2", env=slurm_env(folder, squeue=rows))
    assert (found.returncode, found.stdout) == (0, "") and "nothing to submit: 3 active" in found.stderr, found.stderr
    jobs = [(read_json(run.record) or {})["submissions"][-1]["job_id"] for run in arrays.cells_of(array)]
    assert jobs == ["55_0", "55_1", "55_2"]


def test_a_whole_array_is_cancelled_by_one_call(folder: Path) -> None:
    assert sweep(folder, *GRID, "--shots", "2", env=slurm_env(folder)).stdout.strip() == "101"
    (array,) = [path for path in (folder / "runs/arrays").iterdir() if not path.name.startswith(".")]
    rows = "; ".join(f"echo '101_{i}|RUNNING|1:00|1|{array.name}|cn1|{array}'" for i in (0, 2))
    env = slurm_env(folder, squeue=rows)
    write_program(folder / "bin", "scancel", f"echo \"$*\" >> '{folder}/cancelled'")
    done = cli("cancel.py", "101", cwd=folder, env=env)
    assert done.returncode == 0 and "cancelled 2 of 3 tasks of array 101" in done.stderr
    assert (folder / "cancelled").read_text().split() == ["101"]
    assert [(array / f"submit/101_{i}/cancelled").exists() for i in range(3)] == [True, False, True], "not requeued"


def test_a_task_that_finds_its_result_ends_at_once_without_torch(tmp_path: Path) -> None:
    run = RunFolder(make_private_folder(tmp_path / "cell-00000000"))
    write_json(run.result, {"kind": "fewshot"})
    code = (f"import sys; from jobs.submit.launch import Cell; Cell({str(run.path)!r})(); "
            "print(sorted({'torch', 'deepspeed'} & set(sys.modules)))")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]" and after.ru_utime - before.ru_utime < 2
    assert Cell(str(run.path)).run_path == str(run.path)


def recover(folder: Path, array: Path, task: int, code: int) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The batch script's last command in task `task` of array job 55, and what Slurm was asked for."""
    programs, calls = folder / "bin", folder / "calls"
    write_program(programs, "squeue", f"echo '55_{task}|RUNNING|1:00|1|a|cn1|x'; echo '55_9|PENDING|0:00|1|a|cn1|x'")
    write_program(programs, "scontrol", f'echo "$*" >> {calls}')
    write_program(programs, "sinfo", "echo 'cn1|idle'")
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "71", "SLURM_ARRAY_JOB_ID": "55",
           "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_NODELIST": "cn1"}
    done = subprocess.run([sys.executable, "-m", "jobs.submit.recover", str(array), str(code)], cwd=ROOT, capture_output=True, text=True,
                          env=env, timeout=60)
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_a_task_is_requeued_by_its_own_id(tmp_path: Path) -> None:
    runs = [RunFolder(make_private_folder(tmp_path / f"runs/cell{i}-0000000{i}")) for i in range(3)]
    array = arrays.make_array(tmp_path / "runs/arrays/a", runs)
    for i, run in enumerate(runs):
        make_private_folder(array.submit / f"55_{i}")
        arrays.link_task(run, array, f"55_{i}")
    write_json(runs[0].result, {})
    write_json(runs[2].failure, {"job_id": "55_2", "rank": 0, "kind": "error", "error": "ValueError", "message": "a bug"})
    done, calls = recover(tmp_path, array.path, 0, 1)
    assert done.returncode == 0 and "job 55_0: the run is done" in done.stdout and not calls
    failed, calls = recover(tmp_path, array.path, 2, 1)
    assert failed.returncode == 1 and "a bug" in failed.stdout and not calls, "an error of the code would come again"
    preempted, calls = recover(tmp_path, array.path, 1, 75)
    assert preempted.returncode == 0 and calls == ["requeue 55_1"], preempted.stdout
    (runs[1].submit / "55_1/cancelled").touch()
    assert recover(tmp_path, array.path, 1, 75)[0].returncode == 75, "cancelled through the link in the run folder"


def test_slurm_is_asked_for_an_array_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = f"echo \"$*\" >> '{folder}/asked'; echo '55_1|PENDING|0:00|1|a|(Priority)|x'; echo '55_2|RUNNING|0:01|1|a|cn1|x'"
    env = slurm_env(folder, squeue=squeue)
    write_program(folder / "bin", "sacct", "echo '55_[3-4,7%2]|CANCELLED by 0|00:00:00|1|0:0|None|a'; echo '55_0|FAILED|1|1|1:0|cn1|a'")
    monkeypatch.setenv("PATH", env["PATH"])
    wanted = [f"55_{i}" for i in range(200)]
    assert {job.id: job.state for job in slurm.queued(wanted)} == {"55_1": "PENDING", "55_2": "RUNNING"}
    (asked,) = (folder / "asked").read_text().splitlines()
    assert "--array" in asked and asked.endswith("--jobs=55")
    assert [job.id for job in slurm.queued(["55"])] == ["55_1", "55_2"] and slurm.queued(["55_3", "5"]) == []
    assert {job.id: job.state for job in slurm.accounted(["55_0", "55_4", "55_7", "55_8"])} == {
        "55_0": "FAILED", "55_4": "CANCELLED", "55_7": "CANCELLED"}
