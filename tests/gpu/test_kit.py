"""The GPU kit on the CPU: every stage at toy size, with the packages hidden that a bare machine lacks and the bundle leaves out."""

import json
import os
import select
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

from tests.gpu import bundle
from tests.gpu.report import Report, table
from tests.gpu.run import LIMITS_S
from tests.support import started
from tests.support.facilities import need
from tests.support.programs import forked
from vidmae.runs.gpus import find_gpu
from vidmae.runs.step_time import find_mfu

ROOT = Path(__file__).parents[2]
HIDDEN = ("av", "pyarrow", "submitit", "cv2", "PIL", "skimage", "tensorboard", "rich", "kornia", "torchcodec", "matplotlib", "pytest")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle without wheels."""
    need("clips")
    need("ffmpeg")
    out = tmp_path_factory.mktemp("gpu") / "bundle"
    held = bundle.pack(out, python=None, seconds=6.0, chunk_s=2.0, size="160:120")
    record = json.loads((out / bundle.RECORD).read_text())
    assert (record["size"], record["bytes"]) == ("160:120", held)
    return out


def hide(folder: Path) -> dict[str, str]:
    """An environment whose Python finds none of HIDDEN."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Fewer(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name.partition('.')[0] in {HIDDEN!r} else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Fewer\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_every_stage_runs_on_the_cpu(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "tests/gpu/run.py", "--device", "cpu", "--smoke", "--out", str(out), "--bundle",
                           str(footage)], cwd=ROOT, env=hide(tmp_path), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    stages = json.loads((out / "results.json").read_text())["stages"]
    assert list(stages) == list(LIMITS_S)
    kinds = {name: {line["kind"] for line in stage["lines"]} for name, stage in stages.items()}
    assert all("check" in kinds[name] for name in LIMITS_S if name.startswith("right"))
    assert all("figure" in kinds[name] for name in LIMITS_S if name.startswith(("fast", "fed")))
    assert (out / "table.md").read_text().count("\n| **") == len(LIMITS_S)
    rows = (out / "measured_mfu.yaml").read_text().replace("gpu: unknown", "gpu: H100").replace("mae_vit_nano_patch16", "mae_vit_huge_patch14")
    (out / "measured_mfu.yaml").write_text(rows)
    measured = find_mfu(find_gpu("H100"), "mae_vit_huge_patch14", 4, out / "measured_mfu.yaml")
    shares = [line["mfu_pct"] / 100 for line in stages["fast_step"]["lines"] if line.get("mfu_pct") and not {"masking", "graphs"} & set(line["what"].replace(",", "").split())]
    assert measured.share == pytest.approx(max(shares), abs=6e-6) and measured.source.startswith("measured on H100, micro_batch 4, ")


def test_the_stages_fit_one_visit_of_ten_minutes() -> None:
    stages = {path.stem for path in (ROOT / "tests/gpu/stages").glob("*.py")} - {"__init__"}
    assert set(LIMITS_S) == stages and sum(LIMITS_S.values()) == 600


def test_a_stage_that_fails_or_hangs_is_told_and_stops_no_other(footage: Path, tmp_path: Path) -> None:
    """The limit of the first is far too short; the others have what they need left (a stage that does not exist stands for an error).
    All start as on a GPU, each in a Python of its own."""
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", (
        "import contextlib, sys; from tests.gpu import run; run.SMOKE_LIMIT_S = 0.2; run.LIMITS_S['no_such_stage'] = 0; "
        "run._loaded = lambda env, work: contextlib.nullcontext(env); "
        f"sys.argv = ['run', '--device', 'cpu', '--smoke', '--out', {str(out)!r}, '--bundle', {str(footage)!r}, "
        "'--stages', 'right_zero,no_such_stage,fed_loader']; first = run._stage; "
        "run._stage = lambda name, args, limit, *more: first(name, args, limit if name == 'right_zero' else 60, *more); "
        "sys.exit(run.main())")], cwd=ROOT, env=hide(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    stages = json.loads((out / "results.json").read_text())["stages"]
    assert stages["fed_loader"]["ok"] and {line["kind"] for line in stages["fed_loader"]["lines"]} == {"figure", "check"}
    assert "ended after" in stages["right_zero"]["why"] and "exit code 1" in stages["no_such_stage"]["why"]
    assert "No module named 'tests.gpu.stages.no_such_stage'" in (out / "stages.txt").read_text()
    assert "**FAILED**" in (out / "table.md").read_text()


def test_programs_of_a_server_are_like_those_that_start_anew(tmp_path: Path) -> None:
    """Exit codes, output, environment, a kill; and nothing is left behind. The server loads nothing, to be quick."""
    address, said = tmp_path / "socket", tmp_path / "said.txt"
    with subprocess.Popen([sys.executable, "-c", f"from tests.support.programs import forked; forked.serve({str(address)!r}, 'json')"], cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server, said.open("w") as out:
        assert server.stdout.readline() == b"ready\n"
        env = {**os.environ, forked.SOCKET: str(address), "TOLD": "7"}
        assert forked.start("timeit", ["-n1", "-r1", "import os; print('TOLD', os.environ['TOLD'])"], env, out).wait(timeout=30) == 0
        assert forked.start("timeit", ["--wrong"], env, out).wait(timeout=30) == 2
        assert forked.start("no_such_module", [], env, out).wait(timeout=30) == 1
        sleeps = ["-n1", "-r1", "import time; time.sleep(60)"]
        killed, left = (forked.start("timeit", sleeps, env, out) for _ in range(2))
        with pytest.raises(subprocess.TimeoutExpired):
            killed.wait(timeout=0.1)
        assert killed.poll() is None
        killed.kill()
        assert killed.wait(timeout=30) == killed.poll() == -9
        gone = os.pidfd_open(left.pid)
        left._connection.close()  # as if its user had been killed
        assert select.select([gone], [], [], 30)[0]
        server.stdin.close()
        assert server.wait(timeout=30) == 0
    assert "TOLD 7\n" in said.read_text() and "No module named no_such_module" in said.read_text()


def test_a_server_that_cannot_load_is_tried_once_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked, server = [], forked.server
    monkeypatch.setattr(started, "_address", cache(started._address.__wrapped__))
    monkeypatch.setattr(started, "LOADED", "no_such_module")
    monkeypatch.setattr(forked, "server", lambda address, *rest: asked.append(address) or server(address, *rest))
    for _ in range(2):
        with pytest.raises(forked.NotLoaded, match="no_such_module"):
            started.run("timeit", env={})
    assert len(asked) == 1 and asked[0].is_relative_to(tmp_path.parent), "where pytest tidies up"


def test_a_check_can_fail() -> None:
    report = Report()
    assert report.check("error", 1e-6, 1e-5) and report.check("text", True, True)
    assert report.record()["ok"]
    assert not report.check("too large", 2e-5, 1e-5) and not report.check("nan", float("nan"), 1.0)
    with report.part("a part"):
        raise ValueError("broken | here")
    assert not report.record()["ok"]
    shown = table({"stage": report.record() | {"why": "", "seconds": 1.0, "limit_s": 2.0}})
    assert shown.count("**FAILED**") == 4 and "broken / here" in shown


def test_wheels_are_unpacked_where_their_module_is_missing(tmp_path: Path) -> None:
    (tmp_path / "bundle" / "wheels").mkdir(parents=True)
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps({"python": "3.0"}))
    for module, tag in (("vidmae_missing", "py3-none-any"), ("json", "cp30-cp30-manylinux2014_x86_64")):
        with zipfile.ZipFile(tmp_path / "bundle" / "wheels" / f"{module}-1.0-{tag}.whl", "w") as wheel:
            wheel.writestr(f"{module}/__init__.py", "")
            wheel.writestr(f"{module}-1.0.dist-info/METADATA", "")
    done = bundle.unpack(tmp_path / "bundle", tmp_path / "site")
    assert sorted(done.values()) == ["there already", "unpacked"]
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"vidmae_missing", "vidmae_missing-1.0.dist-info"}
    with zipfile.ZipFile(tmp_path / "bundle" / "wheels" / "also_missing-1.0-cp30-cp30-manylinux2014_x86_64.whl", "w") as wheel:
        wheel.writestr("also_missing.so", "")
    with pytest.raises(SystemExit, match="--python"):
        bundle.unpack(tmp_path / "bundle", tmp_path / "site")


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "pack_footage", lambda out, **how: (out / "rows.json").write_bytes(bytes(bundle.MOST_BYTES + 1)))
    with pytest.raises(SystemExit, match="allowed: 40"):
        bundle.pack(tmp_path / "bundle", python=None)
    assert not (tmp_path / "bundle").exists()
