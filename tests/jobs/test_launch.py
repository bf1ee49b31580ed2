from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.place.profiles import read_site
from jobs.place.resources import Resources
from jobs.place.snapshot import CodeState, code_state, take_snapshot
from jobs.submit import launch
from tests.support.facilities import builder, need
from tests.support.launching import ROOT, STAND_IN
from tests.support.runs import make_manifest, make_run
from vidmae.footage.manifest import Manifest
from vidmae.ranks import preempt, watchdog
from vidmae.runs.record import RunFolder, read_json

PLAIN = Resources("gpu", 2, 0, 2, 4, 0, 90)


def request(folder: Path, **changes: object) -> launch.Request:
    base = launch.Request(run=RunFolder(folder), job_name="a-12345678", resources=PLAIN, on_cpu=True, workers=1)
    return replace(base, **changes)  # type: ignore[arg-type]


def flags(script: str) -> dict[str, str]:
    words = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH")]
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def test_the_script_asks_for_what_was_resolved(tmp_path: Path) -> None:
    script = launch.batch_script(request(
        tmp_path, resources=replace(PLAIN, gpus_per_node=2, mem_mib=4096), on_cpu=False, signal_delay_s=300,
        options={"account": "lab", "dependency": "afterok:7"}, more_options={"mail-type": "END", "exclusive": ""}), "slurm")
    assert flags(script) == {
        "--account": "lab", "--chdir": f"{tmp_path}/code", "--comment": str(tmp_path), "--cpus-per-task": "4",
        "--dependency": "afterok:7", "--exclusive": "", "--gpus-per-node": "2", "--job-name": "a-12345678",
        "--kill-on-invalid-dep": "yes", "--mail-type": "END", "--mem": "4096M", "--nodes": "2", "--ntasks-per-node": "2",
        "--open-mode": "append", "--output": f"{tmp_path}/submit/%j/%j_0_log.out", "--partition": "gpu",
        "--requeue": "", "--signal": "USR2@300", "--time": "90"}
    (srun,) = [shlex.split(line) for line in script.splitlines() if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in srun and "--cpus-per-task=4" in srun
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_scripts_are_valid_shell_whatever_is_in_the_paths(tmp_path: Path, cluster: str) -> None:
    folder = tmp_path / "my runs; $(touch oops) 'x' \"y\""
    script = launch.batch_script(request(folder, env={"A": "it's $HOME `id`"}, setup=("echo hello",)), cluster)
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    setup = "\n".join([*launch.setup_lines(request(folder, env={"A": "it's $HOME `id`"})), 'printf "%s|" "$PYTHONPATH" "$A"'])
    done = subprocess.run(["bash", "-c", setup], cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHONPATH": "/old"},
                          capture_output=True, text=True)
    assert done.stdout == f"{folder}/code:/old|it's $HOME `id`|" and not list(tmp_path.iterdir())


def test_one_rank_writes_byte_code_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = "export PYTHONDONTWRITEBYTECODE=1"
    assert exported in launch.setup_lines(request(tmp_path, resources=replace(PLAIN, nodes=2)))
    assert exported not in launch.setup_lines(request(tmp_path, resources=replace(PLAIN, nodes=1, tasks_per_node=1)))
    (tmp_path / "early.py").write_text("X = 1\n")
    early = SimpleNamespace(__file__=str(tmp_path / "early.py"), __cached__=str(tmp_path / "__pycache__/early.pyc"))
    other = SimpleNamespace(__file__="/elsewhere/other.py", __cached__=str(tmp_path / "__pycache__/other.pyc"))
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "modules", {**sys.modules, "early": early, "other": other})
    launch.keep_bytecode()
    assert not sys.dont_write_bytecode and [path.name for path in (tmp_path / "__pycache__").iterdir()] == ["early.pyc"]


@pytest.mark.parametrize(("rank", "code", "left"), [(3, 0, "ended 0"), (3, 75, "ended 0"), (3, 1, "exit 1"), (0, 0, None), (0, 75, None)])
def test_only_rank_0_lets_submitit_keep_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, code: int, left: str | None) -> None:
    import submitit

    env = SimpleNamespace(global_rank=rank, local_rank=0, num_tasks=4, num_nodes=1, hostnames=["a"], job_id="7", paths=SimpleNamespace(folder=tmp_path))
    said: list[str] = []

    def end(code: int) -> None:
        raise InterruptedError(f"ended {code}")

    monkeypatch.setattr(submitit, "JobEnvironment", lambda: env)
    monkeypatch.setattr(launch, "run_watched", lambda *_: code)
    monkeypatch.setattr(launch, "atexit", SimpleNamespace(register=lambda *_: None))
    monkeypatch.setattr(preempt, "listen", lambda: None)
    monkeypatch.setattr(watchdog, "end_process", end)
    monkeypatch.setattr(launch, "keep_bytecode", lambda: said.append("bytecode"))
    with monkeypatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "VIDMAE_JOB_ID"):
            patch.setenv(name, "")
        try:
            launch.run_rank("any", str(tmp_path))
            found = None
        except InterruptedError as error:
            found = str(error)
        except SystemExit as error:
            found = f"exit {error.code}"
    assert found == left and ("bytecode" in said) == (rank == 0)
    assert (tmp_path / launch.EXIT_CODE).exists() == bool(code)


def test_cpu_ranks_get_the_allocator_and_threads(tmp_path: Path) -> None:
    lines = launch.setup_lines(request(tmp_path))
    assert "export OMP_NUM_THREADS=3" in lines and "export DS_ACCELERATOR=cpu" in lines
    assert "export MALLOC_MMAP_THRESHOLD_=4294967296" in lines and "export MALLOC_TRIM_THRESHOLD_=8589934592" in lines
    on_gpu = launch.setup_lines(request(tmp_path, on_cpu=False, workers=16))
    assert "export OMP_NUM_THREADS=1" in on_gpu and not [line for line in on_gpu if "MALLOC" in line or "DS_" in line]
    of_site = launch.setup_lines(request(tmp_path, env={"OMP_NUM_THREADS": "7"}))
    assert [line for line in of_site if "OMP_NUM_THREADS" in line] == ["export OMP_NUM_THREADS=7"]


def test_ranks_meet_at_the_first_host(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SimpleNamespace(global_rank=5, num_tasks=8, local_rank=1, num_nodes=4, hostnames=["cn7", "cn9"], job_id="123456")
    assert launch.rank_variables(env) == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "cn7", "MASTER_PORT": "13456",
        "VIDMAE_JOB_ID": "123456"}


def test_a_snapshot_holds_source_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    for name in ("vidmae/a.py", "vidmae/recipes/r.yaml", "vidmae/clip.mp4", "jobs/b.py", "runs/x/secret.py", "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    assert code_state(root) == CodeState(None, False)
    for _ in range(2):  # a second one replaces the first
        take_snapshot(run, CodeState("abc", True, "the diff"), root)
    files = {str(p.relative_to(run.code)) for p in run.code.rglob("*") if p.is_file()}
    assert files == {"vidmae/a.py", "vidmae/recipes/r.yaml", "jobs/b.py", "pyproject.toml", "COMMIT", "DIRTY.diff"}
    assert sorted(p.name for p in run.path.iterdir()) == ["code"]


def test_the_state_of_the_code(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "vidmae").mkdir()
    (tmp_path / "vidmae/a.py").write_text("one\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    clean = code_state(tmp_path)
    assert clean.commit and len(clean.commit) == 40 and not clean.dirty and not clean.diff
    (tmp_path / "vidmae/a.py").write_text("two\n")
    dirty = code_state(tmp_path)
    assert dirty.dirty and "+two" in dirty.diff and "diff" not in dirty.record()
    (tmp_path / "notes.txt").write_text("no code")
    (tmp_path / "vidmae/a.py").write_text("one\n")
    assert not code_state(tmp_path).dirty


def run_locally(folder: Path, what: str, tasks: int = 2) -> tuple[RunFolder, str]:
    run = RunFolder(folder / "runs/a-12345678")
    run.submit.mkdir(parents=True)
    take_snapshot(run, CodeState(None, False), ROOT)
    (run.code / "vidmae/train/pretrain.py").write_text(STAND_IN)
    asked = Resources("", 1, 0, tasks, 1, 0, None)
    job = launch.submit(launch.Request(run, "a", asked, True, 0, env={"STAND_IN": what}), "local")
    ended, deadline = run.submit / job / "exit.json", time.monotonic() + 60
    while not ended.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return run, job


def test_a_local_job_runs_the_snapshot_on_every_rank(tmp_path: Path) -> None:
    run, job = run_locally(tmp_path, "ok")
    assert (read_json(run.submit / job / "exit.json") or {})["exit_code"] == 0
    for rank in (0, 1):
        seen = json.loads((run.path / f"seen.{job}.{rank}.json").read_text())
        assert seen["file"] == str(run.code / "vidmae/train/pretrain.py") and seen["cwd"] == str(run.code)
        assert (seen["RANK"], seen["WORLD_SIZE"], seen["LOCAL_RANK"]) == (str(rank), "2", str(rank))
        assert seen["VIDMAE_JOB_ID"] == job and seen["LOCAL_SIZE"] is None and seen["MASTER_ADDR"] == "127.0.0.1"
        assert f"stand-in rank {rank}: ok" in (run.submit / job / f"{job}_{rank}_log.out").read_text()


def test_one_failed_rank_ends_a_local_job_with_its_code(tmp_path: Path) -> None:
    began = time.monotonic()
    run, job = run_locally(tmp_path, "fail:1:2")
    assert (read_json(run.submit / job / "exit.json") or {})["exit_code"] == 2
    assert time.monotonic() - began < 60, "rank 0 sleeps for minutes"


DIES = """
import os, pathlib, sys, time
def load_before_fork(device_type): assert device_type == "cpu"
def main(run_path):
    run, rank = pathlib.Path(run_path), os.environ["RANK"]
    with (run / f"starts.{rank}").open("a") as f: print(os.environ.get("VIDMAE_RESTARTED"), file=f)
    while not (run / f"starts.{1 - int(rank)}").exists(): time.sleep(0.1)
    starts = len((run / f"starts.{rank}").read_text().splitlines())
    if starts <= int(os.environ["STAND_IN"]):
        time.sleep(0.5 if rank == "1" else 100)
        os.kill(os.getpid(), 9)
    return 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(("deaths", "code"), [(2, 0), (9, 137)])
def test_a_local_job_comes_back_in_place_until_that_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int,
                                                              code: int) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STAND_IN", DIES)
    (tmp_path / "runs/a-12345678").mkdir(parents=True)
    (tmp_path / "runs/a-12345678/config.yaml").write_text("recovery: {restarts_in_place: 3}\n")
    run, job = run_locally(tmp_path, str(deaths))
    assert (read_json(run.submit / job / "exit.json") or {})["exit_code"] == code
    started = min(deaths, 3) * ["rank 1 was killed by signal 9"]
    assert [(run.path / f"starts.{rank}").read_text().splitlines() for rank in (0, 1)] == 2 * [["None", *started]]
    log = (run.submit / job / f"{job}_0_log.out").read_text()
    assert "all ranks start again in place (2 of 3 times)" in log, log


COMES_BACK = """
import json, os, pathlib, signal, time
from jobs.submit.launch import EXIT_CODE
def main(run_path):
    run, why, what, job = pathlib.Path(run_path), os.environ.get("VIDMAE_RESTARTED"), os.environ["STAND_IN"], os.environ["VIDMAE_JOB_ID"]
    with (run / "starts").open("a") as f: print(why, file=f)
    attempt = {"job_id": job, "restart": 0, "started": 0.0, "updated": 1.0, "first_step": 10}
    if what != "dies at once":
        (run / "attempts.json").write_text(json.dumps({"schema": 1, "attempts": [attempt] * len((run / "starts").read_text().splitlines())}))
    if what == "once" and why:
        return 0
    if what == "asked":
        os.kill(int(job), signal.SIGTERM)
        time.sleep(0.5)
    if what == "once":
        (run / "submit" / job / EXIT_CODE).write_text("137")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("what", "again", "code"), [("once", 1, 0), ("always", 2, -9), ("dies at once", 0, -9), ("asked", 0, -9)])
def test_a_local_job_starts_again_by_itself_after_a_rank_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, again: int, code: int
) -> None:
    """Until three attempts have begun at the same step, as under Slurm; not where it dies before there is an attempt, and not
    where it was asked to stop."""
    monkeypatch.setattr(sys.modules[__name__], "STAND_IN", COMES_BACK)
    run, job = run_locally(tmp_path, what, tasks=1)
    assert (read_json(run.submit / job / "exit.json") or {})["exit_code"] == code
    assert (run.path / "starts").read_text().splitlines() == ["None", *again * ["a rank was killed by signal 9"]]
    assert f"all ranks start again ({again} of 20 times)" in (run.submit / job / f"{job}_0_log.out").read_text() or not again


def test_a_payload_is_pickled_by_reference() -> None:
    code = "import pickle, sys; from jobs.submit.launch import Pretrain; sys.stdout.buffer.write(pickle.dumps(Pretrain('/runs/a')))"
    data = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT).stdout
    assert b"jobs.submit.launch" in data and b"/runs/a" in data and len(data) < 200


# --- the image that ranks may run in ---------------------------------------------------------------------------------

HOME = ROOT / "jobs/clusters/container"
OCI, DEF, INSTALL = HOME / "Containerfile", HOME / "vidmae.def", HOME / "install.sh"
IN_IMAGE = "apptainer exec --nv --bind /project /project/images/vidmae.sif python"  # as jobs/README.md has it
DEBIAN = "http://deb.debian.org/debian"


def section(name: str) -> list[str]:
    """Lines of a section of the definition."""
    text = re.search(rf"^%{name}\n((?:    .*\n)+)", DEF.read_text(), re.MULTILINE)
    assert text, name
    return [line.strip() for line in text[1].splitlines()]


def test_both_recipes_copy_the_same_files_run_the_same_script_and_have_the_same_base() -> None:
    oci = dict(line.split(maxsplit=1) for line in OCI.read_text().splitlines() if line and not line.startswith("#"))
    *sources, place = oci["COPY"].split()
    copied = dict(line.split() for line in section("files"))
    assert copied == {source: f"{place}{Path(source).name}" for source in sources}
    assert all((ROOT / source).is_file() for source in sources), "paths start at the checkout"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert ignored == ["*", *(f"!{source}" for source in sources)], "nothing else is sent to a builder: runs, footage, environments"
    assert section("post") == [oci["RUN"]] == [f"bash {copied[str(INSTALL.relative_to(ROOT))]}"]
    assert section("environment") == [f"export {oci['ENV']}"]
    assert f"From: {oci['ARG'].removeprefix('BASE=')}\n" in DEF.read_text() and oci["FROM"] == "${BASE}"


def test_the_image_has_the_versions_of_requirements_txt_and_not_the_suite(tmp_path: Path) -> None:
    """The script itself runs, with stand-ins for what would fetch packages."""
    (tmp_path / "bin").mkdir()
    stand_ins = {"apt-get": "exit 0", "rm": "exit 0",
                 "python3": 'mkdir -p "$3/bin" && cp "$(dirname "$0")/pip" "$3/bin/pip"', "pip": 'cp "${@: -1}" "$(dirname "$0")/asked"'}
    for name, line in stand_ins.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    shutil.copyfile(ROOT / "requirements.txt", tmp_path / "requirements.txt")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "VIDMAE_IMAGE": str(tmp_path)}
    subprocess.run(["bash", str(INSTALL)], env=env, check=True)
    wanted, asked = ((ROOT / "requirements.txt").read_text().splitlines(), (tmp_path / "env/bin/asked").read_text().splitlines())
    assert [line for line in wanted if line not in asked] == ["-e ."] and len(asked) == len(wanted) - 1
    assert not re.search(r"[=<>]=\s*\d", "".join(path.read_text() for path in (OCI, DEF, INSTALL))), "versions have one place"


def test_a_rank_starts_in_the_image_and_what_asks_slurm_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in does to words and variables what apptainer does: the image's PATH, every other variable of the host."""
    (tmp_path / "site.yaml").write_text(f"python: {IN_IMAGE}\n")
    (layer,) = read_site(tmp_path / "site.yaml").layers
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/apptainer"
    stand_in.write_text('#!/bin/bash\nwhile [ "$1" != python ]; do shift; done\n'
                        f'export PATH=/opt/vidmae/env/bin SITE_NOTE="in the image"\nexec {sys.executable} "${{@:2}}"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    run = RunFolder(tmp_path / "runs/a-12345678")
    run.submit.mkdir(parents=True)
    take_snapshot(run, CodeState(None, False), ROOT)
    (run.code / "vidmae/train/pretrain.py").write_text(STAND_IN)
    request = launch.Request(run, "a", Resources("gpu", 1, 0, 1, 1, 0, 60), True, 0, python=layer.values["python"])
    (ranks,) = [line for line in launch.batch_script(request, "slurm").splitlines() if line.startswith("srun ")]
    assert f" {IN_IMAGE} -u -m submitit.core._submit " in ranks
    assert launch.batch_script(request, "slurm").splitlines()[-1].startswith(f"exec {shlex.quote(sys.executable)} -m jobs.submit.recover")
    job = launch.submit(request, "local")
    ended, deadline = run.submit / job / "exit.json", time.monotonic() + 60
    while not ended.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (read_json(ended) or {})["exit_code"] == 0
    seen = json.loads((run.path / f"seen.{job}.0.json").read_text())
    assert seen["SITE_NOTE"] == "in the image" and seen["file"] == str(run.code / "vidmae/train/pretrain.py")


def base_image(program: str, folder: Path) -> list[str]:
    """Words that give the builder its base: nothing where it can be pulled, else the same packages from Debian's mirror."""
    named = next(line for line in OCI.read_text().splitlines() if line.startswith("ARG BASE=")).removeprefix("ARG BASE=")
    if subprocess.run([program, "pull", named], capture_output=True).returncode == 0:
        return []
    if not shutil.which("debootstrap"):
        need("builder", f"{program} cannot pull {named}, and debootstrap is not here")
    root = folder / "root"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(root), DEBIAN], check=True, capture_output=True)
    (folder / "Base").write_text("FROM scratch\nADD root /\n")
    subprocess.run([program, "build", "--file", str(folder / "Base"), "--tag", "localhost/vidmae-base", str(folder)], check=True)
    return ["--build-arg", "BASE=localhost/vidmae-base"]


@pytest.mark.slow
def test_the_image_is_built_and_trains(tmp_path: Path) -> None:
    """BUILD_FLAGS has what a site's builder needs besides, such as a volume with its certificates."""
    need("builder")
    program, flags = builder(), shlex.split(os.environ.get("BUILD_FLAGS", ""))
    assert program
    manifest = make_manifest(tmp_path / "data")
    run = make_run(tmp_path / "runs/tiny", manifest, "data.workers=1")
    bound, env = [str(tmp_path), str(ROOT), str(Path(Manifest.read(manifest).path(0)).parent)], {"PYTHONPATH": str(ROOT)}
    words = ["python", "-m", "vidmae.train.pretrain", str(run.path)]
    if program == "apptainer":
        image = str(tmp_path / "vidmae.sif")
        subprocess.run([program, "build", *flags, image, str(DEF)], cwd=ROOT, check=True)
        start = [program, "exec", *(word for path in bound for word in ("--bind", path)), image]
        subprocess.run([*start, *words], cwd=ROOT, env={**os.environ, **env}, check=True)
    else:
        subprocess.run([program, "build", *flags, *base_image(program, tmp_path / "base"), "--file", str(OCI), "--tag",
                        "localhost/vidmae", "."], cwd=ROOT, check=True)
        volumes = [word for path in bound for word in ("--volume", f"{path}:{path}")]
        given = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        if program == "buildah":
            made = subprocess.run([program, "from", "localhost/vidmae"], check=True, capture_output=True, text=True).stdout.strip()
            start = [program, "run", *flags, *volumes, *given, "--workingdir", str(ROOT), made, "--"]
        else:
            start = [program, "run", "--rm", *volumes, *given, "--workdir", str(ROOT), "localhost/vidmae"]
        subprocess.run([*start, *words], check=True)
    assert run.result.exists() and run.weights.exists()
