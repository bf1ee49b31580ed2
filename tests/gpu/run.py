"""Check and measure vidmae on one GPU: is it right, is it fast, is it fed.

    python3 tests/gpu/run.py --minutes 10 --out gpu-results         everything, on a GPU; or: make gpu
    python3 tests/gpu/run.py --device cpu --smoke --out /tmp/smoke  the same lines at toy size, less than a minute on two cores
    python3 tests/gpu/run.py --stages right_zero,fast_step --out o  some of the stages, in this order

Stages run one after the other in order of their value, each in a process of its own and with its own time limit; in a smoke run
on a CPU they are forked from one that has torch loaded (tests/support/programs/forked.py). One that fails or is ended does not
stop the others. After each stage OUT/results.json is written anew; what a stage prints goes to OUT/stages.txt; OUT/table.md is
the whole as one table; OUT/measured_mfu.yaml has the lines for vidmae/runs/measured_mfu.yaml, from which plans take the MFU.
Exit code 1 where a check failed or a stage did not end by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(ROOT))

from tests.gpu.bundle import BUNDLE, KINDS, RECORD, pack, unpack  # noqa: E402
from tests.support.programs import forked  # noqa: E402

LIMITS_S = {  # in order of value; in all 600 s, the length of one visit to a machine
    "right_model": 45, "right_zero": 45, "fast_step": 120, "right_resume": 45, "fast_peers": 90, "fed_training": 135,
    "right_faults": 35, "fast_kernels": 30, "fed_loader": 30, "fast_others": 25}
STAGES = ", ".join(LIMITS_S)
SMOKE_LIMIT_S = 600.0  # of each stage of a smoke run, whatever --minutes says: machines that test may be busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all stages together (default: %(default)g)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; those of an earlier call are replaced")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    parser.add_argument("--smoke", action="store_true", help="toy sizes: tries the kit, measures nothing of worth")
    parser.add_argument("--stages", default=",".join(LIMITS_S), metavar="A,B", help=f"of {STAGES} (default: all)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="made by tests/gpu/bundle.py (default: %(default)s)")
    args = parser.parse_args()
    names = [name for name in args.stages.split(",") if name]
    if unknown := [name for name in names if name not in LIMITS_S]:
        parser.error(f"no stage {', '.join(unknown)}; there are: {STAGES}")
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g} must be more than 0")
    args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="vidmae-gpu-"))
    try:
        return run(args, names, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(args: argparse.Namespace, names: list[str], work: Path) -> int:
    """All stages; the exit code."""
    began = time.time()
    args.out, args.bundle = args.out.resolve(), args.bundle.resolve()
    os.chdir(ROOT)
    footage = args.bundle if all((args.bundle / kind).is_dir() for kind in KINDS) else None
    if footage is None:  # a machine with all packages: as the tests have it
        footage = work / "bundle"
        pack(footage, python=None, **({"seconds": 8.0, "chunk_s": 3.0, "size": "160:120"} if args.smoke else {}))
    wheels = unpack(args.bundle, work / "site")
    path = os.pathsep.join(filter(None, [str(ROOT), str(work / "site"), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "VIDMAE_GPU_FOOTAGE": str(footage), "VIDMAE_GPU_WORK": str(work),
           "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"), "TRITON_CACHE_DIR": str(work / "triton"),
           "PYTHONFAULTHANDLER": "1", "VIDMAE_GPU_RESULTS": str(args.out / "results.json")}
    (work / "inductor").mkdir(mode=0o700)  # a run refuses compiled code that others could write
    if args.smoke and args.device == "cpu":
        env["OMP_NUM_THREADS"] = "1"  # of models this small more threads make busy machines slower
    with _loaded(env, work) if args.smoke and args.device == "cpu" else contextlib.nullcontext(env) as shared:
        return _stages(args, names, work, footage, wheels, shared, began)


@contextlib.contextmanager
def _loaded(env: dict[str, str], work: Path) -> Iterator[dict[str, str]]:
    """A server that has torch loaded, and the environment of programs that begin there."""
    address = work / "forked"
    try:
        with forked.server(address, "tests.gpu.programs.loaded", env, ROOT):
            yield {**env, forked.SOCKET: str(address)}
    except forked.NotLoaded as error:
        sys.exit(str(error))


def _stages(args: argparse.Namespace, names: list[str], work: Path, footage: Path, wheels: dict[str, str],
            env: dict[str, str], began: float) -> int:
    """Run them; the exit code."""
    machine = _machine(env, args.device, work)
    results: dict[str, Any] = {
        "scale": "smoke" if args.smoke else "full", "device": args.device, "minutes": args.minutes, "machine": machine,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "commit": _commit(), "wheels": wheels,
        "bundle": json.loads((footage / RECORD).read_text()), "stages": {}}
    _write(args.out, results)
    share = args.minutes / (sum(LIMITS_S.values()) / 60)
    spare, end = 0.0, began + 60 * args.minutes
    with (args.out / "stages.txt").open("w") as log:
        for name in names:
            limit = SMOKE_LIMIT_S if args.smoke else max(1.0, min(LIMITS_S[name] * share + spare, end - time.time()))
            result = _stage(name, args, limit, env, work, log)
            spare = max(0.0, limit - result["seconds"])
            results["stages"][name] = result
            _write(args.out, results)
            print(f"{name}: {'ok' if result['ok'] else 'FAILED'}, {result['seconds']:.1f} of {limit:.0f} s"
                  + (f" ({result['why']})" if result["why"] else ""), file=sys.stderr, flush=True)
    print((args.out / "table.md").read_text())
    return 0 if all(stage["ok"] for stage in results["stages"].values()) else 1


def _stage(name: str, args: argparse.Namespace, limit_s: float, env: dict[str, str], work: Path, log: Any) -> dict[str, Any]:
    """One stage in its own process group, which ends with it."""
    partial, began = work / f"{name}.json", time.time()
    log.write(f"\n===== {name}\n")
    log.flush()
    process = forked.start("tests.gpu.stage", [name, args.device, "smoke" if args.smoke else "full"],
                         {**env, "VIDMAE_GPU_PARTIAL": str(partial), "VIDMAE_GPU_DEADLINE": str(began + limit_s)}, log, leads=True)
    why = ""
    try:
        code = process.wait(timeout=limit_s)
        why = f"exit code {code}, see stages.txt" if code else ""
    except subprocess.TimeoutExpired:
        why = f"ended after {limit_s:.0f} s; what it had found by then is below"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # programs that it started, too
        process.wait()
    found = json.loads(partial.read_text()) if partial.is_file() else {"ok": False, "lines": []}
    finished = found.pop("finished", False)
    return {**found, "ok": found["ok"] and finished and not why, "why": why, "seconds": time.time() - began, "limit_s": limit_s}


def _machine(env: dict[str, str], device: str, work: Path) -> dict[str, Any]:
    """The card and the versions."""
    said = work / "card.json"
    with said.open("w") as out:
        code = forked.start("tests.gpu.card", [], env, out).wait()
    if code:
        sys.exit(f"torch cannot be loaded with {sys.executable}:\n{said.read_text()[-1000:]}")
    found = json.loads(said.read_text().splitlines()[-1])
    if device == "cuda" and not found["card"]:
        sys.exit(f"torch {found['torch']} sees no GPU; --device cpu --smoke tries the kit without one")
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    return {**found, "cpu": cpu, "cores": os.cpu_count(), "load_1min": round(os.getloadavg()[0], 2),
            "python": platform.python_version()}


def _commit() -> str | None:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None


def _write(out: Path, results: dict[str, Any]) -> None:
    from tests.gpu.report import mfu_rows, table
    from vidmae.runs.gpus import find_gpu
    from vidmae.runs.record import write_atomic

    machine, stages = results["machine"], results["stages"]
    head = (f"{machine['card'] or machine['cpu']}, torch {machine['torch']}, Python {machine['python']}, {results['date']}, commit "
            f"{results['commit']}, scale {results['scale']}\n\n")
    write_atomic(out / "results.json", (json.dumps(results, indent=1) + "\n").encode(), mode=0o644)
    write_atomic(out / "table.md", (head + table(stages)).encode(), mode=0o644)
    gpu = find_gpu(machine["card"] or "")
    rows = mfu_rows(gpu.name if gpu else "unknown", f"torch {machine['torch']}", results["date"][:10],
                    stages.get("fast_step", {}).get("lines", []))
    write_atomic(out / "measured_mfu.yaml", f"rows:\n{rows}".encode() if rows else b"rows: []\n", mode=0o644)


if __name__ == "__main__":
    sys.exit(main())
