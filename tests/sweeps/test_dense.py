"""The dense sweep as a user types it: cells, controls, what is refused, and a sweep on this machine with stand-ins for cells."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sweeps import dense
from tests.support.launching import write_cell_profile
from tests.vidmae.evaluate.dense.test_layouts import write_davis

LOCAL = ["--cluster", "local"]
FLAGS = ("-h --help --sets --set "
         "--cluster --profile -N --nodes -p --partition -A --account -q --qos -t --time --gpus-per-node --tasks-per-node "
         "--ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude -w --nodelist -d --dependency -J --job-name "
         "--signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --max-parallel --retry --wait --watch --runs-dir --out --json")


def write_file(path: Path, *, frames: int = 4, width: int = 96) -> None:
    """The header of an encoder's weights, all that a launcher reads."""
    shapes = {"patch_embed.proj.weight": [width, 3, 2, 16, 16], "pos_embed_spatial": [1, 4, width],
              "pos_embed_temporal": [1, frames // 2, width], **{f"blocks.{i}.norm1.weight": [width] for i in range(3)}}
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with two files of one shape."""
    for name in ("a", "b"):
        write_file(own_folder / f"{name}.safetensors")
    with (own_folder / "b.safetensors").open("ab") as file:
        file.write(b" ")
    return own_folder


def sweep(*args: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is in the folder of the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = dense.main(list(args))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def cells_of(*args: str) -> dict[tuple[str, str], str]:
    """Run folders by model and set."""
    done = sweep(*LOCAL, *args, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    return {(cell["checkpoint"], cell["data"]): cell["run"] for cell in json.loads(done.stdout)["cells"]}


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(dense.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/dense\.py(.*)$", dense.__doc__ or "", re.M)
    assert 2 <= len(commands) <= 3
    for command in commands:
        dense.make_parser().parse_args(shlex.split(command))


def test_random_weights_and_controls_are_among_the_models(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    found = cells_of("a.safetensors", "b.safetensors")
    assert [model for model, _ in found] == ["a", "b", "scratch", "static", "oracle", "pixels 2x2", "mean 2x2", "ceiling 2x2"]
    write_davis(folder / "DAVIS")
    (folder / "points.pkl").write_bytes(b"not read by the launcher")
    before = sorted(folder.rglob("*"))
    more = cells_of("a.safetensors", "--sets", "generated,davis=DAVIS,tapvid=points.pkl")
    assert {place: run for place, run in found.items() if place[0] != "b"}.items() <= more.items(), "the same cells, whatever is beside"
    assert [model for model, data in more if data == "davis"] == ["a", "scratch", "static", "pixels 2x2", "mean 2x2", "ceiling 2x2"]
    assert [model for model, data in more if data == "tapvid"] == ["a", "scratch", "static", "pixels 2x2", "mean 2x2"]
    assert sorted(folder.rglob("*")) == before, "a dry run writes nothing"
    line = next(line for line in sweep(*LOCAL, "a.safetensors", "--dry-run").stderr.splitlines() if line.split()[:1] == ["a"])
    assert line.split()[1:4] == ["generated", "encoder", "2x2"] and line.split()[-1] == "PFLOP"
    (folder / "moved").mkdir()
    (folder / "DAVIS").rename(folder / "moved/DAVIS")
    (folder / "points.pkl").write_bytes(b"other")
    moved = cells_of("a.safetensors", "--sets", "generated,davis=moved/DAVIS,tapvid=points.pkl")
    assert {place for place in more if more[place] != moved[place]} == {place for place in more if place[1] == "tapvid"}


def test_settings_that_change_no_result_make_no_other_cell() -> None:
    usual = cells_of("a.safetensors")
    assert cells_of("a.safetensors", "--set", "evaluate.batch=3") == usual
    still = cells_of("a.safetensors", "--set", "dense.clip=still")
    assert all(still[place] != run for place, run in usual.items())


@pytest.mark.parametrize(("args", "said"), [
    (["none.safetensors"], "there is no file"), (["a.safetensors", "conv"], "conv is a convolutional net (model.net conv), which has no features"), (["a.safetensors", "--sets", "davis=nowhere"], "has not the layout of DAVIS 2017"),
    (["a.safetensors", "--sets", "coco=x"], "'coco=x' is no set; allowed: davis=FOLDER"),
    (["a.safetensors", "--sets", "tapvid=x/p.pkl,tapvid=y/p.pkl"], "two sets are called 'tapvid-p'"),
    (["a.safetensors", "--sets", "tapvid=none.pkl"], "none.pkl is no set of points"),
    (["a.safetensors", "--set", "dense.features=oracle"], "dense.features cannot be set for a sweep"),
    (["a.safetensors", "--set", "dense.neighbours=0"], "dense.neighbours is 0, allowed: 1 or more"),
    (["a.safetensors", "--set", "dense.neighbour=3"], "neighbours"),
    (["a.safetensors", "--set", "model.img_size=64"], "model.img_size is 64 [from --set], allowed with a: 32; --set train.resize_positions=true")])
def test_what_cannot_be_probed_is_refused(args: list[str], said: str) -> None:
    done = sweep(*LOCAL, *args, "--dry-run")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_sweep_here_runs_every_cell_and_the_same_command_submits_nothing(folder: Path) -> None:
    profile = write_cell_profile(folder)
    args = [*LOCAL, "a.safetensors", "--profile", str(profile)]
    done = sweep(*args, "--wait", "--max-parallel", "3")
    assert done.returncode == 0 and done.stdout.strip().isdecimal(), done.stderr
    assert "7 of 7 cells, in tables/dense.csv, tables/dense.md" in done.stderr
    assert len(list((folder / "runs").glob("dense-*/result.json"))) == 7
    record = json.loads(next((folder / "runs").glob("dense-oracle-on-generated-*/run.json")).read_text())
    assert record["kind"] == "dense" and record["cell"]["features"] == "oracle" and "commit" in record
    again = sweep(*args)
    assert again.returncode == 0 and again.stdout == "" and "nothing to submit: 7 done" in again.stderr
