"""What a sweep of a hundred thousand cells must not do for each of them (tests/bench/bench_arrays.py measures one)."""

import json
import os
from pathlib import Path

import pytest

from jobs.place import snapshot
from jobs.place.scheduler import slurm
from jobs.standing import arrays
from sweeps import fewshot
from sweeps.grid import checkpoints, states
from sweeps.grid.states import look_again
from sweeps.run.watch import Watch
from tests.bench.bench_arrays import slurm as slurm_env
from tests.support.labelled import write_labelled
from vidmae.runs.nodes.left_out import leave_out_node
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import load, to_yaml

ARGS = ["--recipe", "finetune_demo", "--checkpoints", "scratch", "--shots", "2", "--seeds", "0,1,2,3,4,5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six cells, submitted as two arrays of at most four."""
    top = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        for name, value in slurm_env(top).items():
            patch.setenv(name, value)
        patch.setattr(slurm, "max_array_size", lambda: 4)
        patch.setattr(slurm, "leave_surrounding_job", lambda: None)
        write_labelled(top / "manifests")
        assert fewshot.main(ARGS) == 0
    return top


def test_cells_that_are_tried_again_avoid_the_nodes_that_they_left_out(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in slurm_env(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "leave_surrounding_job", lambda: None)
    argv = [*ARGS, "--data", str(folder / "manifests/toys.csv"), "--seeds", "0,1"]
    assert fewshot.main(argv) == 0
    (array,) = the_arrays(tmp_path)
    leave_out_node(arrays.cells_of(array)[1], "cn2", "its disk is full")
    for more, excluded in (([], True), (["--exclude", ""], False)):
        capsys.readouterr()
        assert fewshot.main([*argv, "--retry", "missing", *more]) == 0
        said, script = capsys.readouterr().err, max(the_arrays(tmp_path)[-1].rglob("*.sh"), key=lambda path: path.stat().st_mtime).read_text()
        assert "note: left out within 24 h: cn2 (its disk is full)" in said and ("--exclude=cn2" in script) is excluded, said


def the_arrays(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "runs/arrays").iterdir() if path.is_dir() and not path.name.startswith("."))


def test_arrays_of_a_call_share_the_files_of_one_snapshot(folder, tmp_path, monkeypatch):
    first, second = the_arrays(folder)
    files = [path for path in (first / "code").rglob("*") if path.is_file()]
    assert len(files) > 100 and all((second / "code" / path.relative_to(first / "code")).samefile(path) for path in files)
    assert (second / "code").stat().st_mode & 0o777 == 0o700 and not list(second.rglob("__pycache__"))
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    third = RunFolder(make_private_folder(tmp_path / "third"))
    snapshot.share_snapshot(third, RunFolder(first))
    for path in files:
        copy = third.code / path.relative_to(first / "code")
        assert copy.read_bytes() == path.read_bytes() and not copy.samefile(path)


def test_the_files_of_a_cell_are_as_the_slow_way_writes_them(folder):
    for array in the_arrays(folder):
        for task, run in enumerate(arrays.cells_of(array)):
            record = read_json(run.record) or {}
            assert run.record.read_text() == json.dumps(record, indent=2) + "\n" and not list(run.path.glob(".*"))
            assert run.config.read_text() == to_yaml(load(FinetuneConfig, run.config))
            job = record["submissions"][-1]["job_id"]
            assert job.endswith(f"_{task}") and (run.submit / job).resolve() == (array / "submit" / job).resolve()
            assert run.code.readlink() == Path(f"../arrays/{array.name}/code"), "relative, so that the folder of the runs may be moved"


def test_cells_that_wait_are_not_looked_into_again(folder, monkeypatch):
    runs = [run for array in the_arrays(folder) for run in arrays.cells_of(array)]
    jobs = [(read_json(run.record) or {})["submissions"][-1]["job_id"] for run in runs]
    name = {job: array.name for array in the_arrays(folder) for job in [path.name for path in (array / "submit").iterdir()]}
    said: dict[str, str] = dict.fromkeys(jobs, "PENDING")
    asked: list[object] = []

    def queued(ids):
        asked.append(set(ids))
        return [slurm.Job(job, name[job], state, "0:00", "1", "(Priority)", None, "squeue") for job, state in said.items() if state]

    read = []
    monkeypatch.setattr(slurm, "queued", queued)
    monkeypatch.setattr(slurm, "accounted", lambda ids: [])
    known = states.submissions
    monkeypatch.setattr(states, "submissions", lambda run: read.append(run) or known(run))
    standings = [states.Standing(None, run, "active", state) for run, state in zip(runs, states.states(runs)[0], strict=True)]
    assert [s.kind for s in look_again(standings)] == ["active"] * 6 and not read
    assert asked[-1] == {slurm.base_id(job) for job in jobs}, "of an array all tasks are asked for at once"
    said[jobs[1]], said[jobs[2]], said[jobs[5]] = "RUNNING", "", "FAILED"
    write_json(runs[2].result, {"top1_pct": 50.0})
    del asked[:]
    found = look_again(standings)
    assert [s.kind for s in found] == ["active", "active", "done", "active", "active", "failed"] and read == [runs[1], runs[2], runs[5]]
    assert len(asked) == 1 and found[1].state.state == "RUNNING" and found[0] is standings[0]
    write_json(runs[1].record, {"submissions": [{"cluster": "slurm", "state": "submitted", "job_id": "999_0", "job_name": "n"}]})
    assert look_again(found)[1].state.job_id == "999_0", "submitted anew by somebody else: asked for, too"
    assert asked[-1] == ["999_0"] or "999_0" in asked[-1]
    watch = Watch(found, 0.0, 0)
    assert watch._top1_pct(found[2]) == 50.0
    runs[2].result.unlink()
    assert watch._top1_pct(found[2]) == 50.0, "a result is read once"


def test_without_a_checkpoint_that_is_a_run_no_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "all_runs", lambda _: pytest.fail("looked at all runs"))
    (scratch,) = checkpoints.find_inits(["scratch"], [], tmp_path)
    assert scratch.name == "scratch"
