"""jobs/clean.py lists what may go, and removes that and nothing else, whenever it is interrupted."""

from __future__ import annotations

import io
import json
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from jobs import clean
from jobs.keeping import removal
from jobs.keeping.protection import find_references
from jobs.place.scheduler import slurm
from tests.jobs.keeping.conftest import add_checkpoints, add_code, contents, copy_run, grow_old
from tests.support.launching import Told, caller
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.runs.record import RunFolder


@pytest.fixture
def call(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.chdir(runs.parent)
    monkeypatch.setattr(slurm, "queued", lambda ids=(), name=None: [])
    monkeypatch.setattr(slurm, "accounted", lambda ids: [])
    monkeypatch.setattr(clean.sys, "stdin", io.StringIO("y\n"))  # which is no terminal
    return caller(clean.main, capsys)


def listed(call: Told, *args: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a dry run lists, path -> kind, and what it leaves, name -> why."""
    code, out, err = call(*args, "--json")
    assert code == 0, err
    found = json.loads(out)
    return {str(Path(s["path"]).relative_to(Path("runs").absolute())): s["kind"] for s in found["found"]}, found["left"]


def as_slurm_job(run: RunFolder) -> None:
    """Let the newest job of a run be one of Slurm's."""
    record = json.loads(run.record.read_text())
    record["submissions"][-1] |= {"cluster": "slurm", "job_id": "77"}
    shutil.rmtree(run.submit)
    run.record.write_text(json.dumps(record))


def test_a_list_changes_nothing_and_what_was_listed_goes_and_nothing_else(runs: Path, call: Told) -> None:
    (runs / "stopped-b17e30cc/checkpoints/.step_00000030.tmp").mkdir()
    (runs / "done-edd1b7a1/.code.old").mkdir()
    grow_old(runs)
    before = contents(runs)
    found, _ = listed(call, "--older-than", "30")
    assert found == {"done-edd1b7a1/checkpoints/step_00000023": "checkpoints", "done-edd1b7a1/.code.old": "leftovers",
                     "stopped-b17e30cc": "failed", "done-motion-2shot-seed1-finetune-78e23e68": "failed"}
    code, out, err = call("--older-than", "30")
    assert code == 0 and contents(runs) == before and "nothing was changed" in err and len(out.splitlines()) == 1 + len(found)
    code, _, err = call("--older-than", "30", "--delete", "--yes")
    assert code == 0, err
    stays = {path: what for path, what in before.items() if not any(path == gone or path.startswith(f"{gone}/") for gone in found)}
    assert contents(runs) == {**stays, "arrays": ""}, "where sweeps lock"
    assert listed(call, "--older-than", "30")[0] == {}


def test_without_a_terminal_somebody_must_have_agreed(runs: Path, call: Told) -> None:
    before = contents(runs)
    code, _, err = call("--delete")
    assert code == 2 and "--yes" in err and contents(runs) == before


def test_failed_runs_are_listed_by_age_alone(runs: Path, call: Told) -> None:
    found, left = listed(call)
    assert "failed" not in found.values() and left["failed runs"].startswith("2 ended without a result")
    assert "failed" not in listed(call, "--older-than", "41")[0].values()
    (runs / "stopped-b17e30cc/metrics.jsonl").touch()
    assert [path for path, kind in listed(call, "--older-than", "30")[0].items() if kind == "failed"] == [
        "done-motion-2shot-seed1-finetune-78e23e68"]
    _, out, _ = call("--older-than", "0", "stopped")
    assert "CANCELLED" in out and "step 17 of 100" in out and "1 checkpoints" in out


def test_of_an_unfinished_run_the_newest_whole_checkpoints_stay(runs: Path, call: Told) -> None:
    run = RunFolder(runs / "stopped-b17e30cc")
    add_checkpoints(run, 5, 10, 20, 23)
    grow_old(runs)
    path = "stopped-b17e30cc/checkpoints/step_000000"
    assert set(listed(call, "--kinds", "checkpoints", "stopped")[0]) == {f"{path}05", f"{path}10"}  # keep_last is 2
    shard = run.checkpoints / "step_00000023/state/mp_rank_00_model_states.pt"
    shard.write_bytes(shard.read_bytes()[:-1])
    (run.checkpoints / "step_00000020/COMPLETE").unlink()
    assert set(listed(call, "--kinds", "checkpoints", "stopped")[0]) == set(), "what is not whole keeps none from staying"
    add_checkpoints(run, 7)
    grow_old(runs)
    assert set(listed(call, "--kinds", "checkpoints", "stopped")[0]) == {f"{path}05"}


def test_checkpoints_of_a_done_run_stay_until_its_weights_are_whole(runs: Path, call: Told) -> None:
    weights = runs / "done-edd1b7a1/weights.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-4], whole + b"0000", whole[:20], b""):
        weights.write_bytes(damaged)
        found, left = listed(call, "--kinds", "checkpoints")
        assert found == {} and "not whole" in left["done-edd1b7a1"], len(damaged)
    weights.unlink()
    assert listed(call, "--kinds", "checkpoints")[0] == {}
    weights.write_bytes(whole)
    assert len(listed(call, "--kinds", "checkpoints")[0]) == 1


def test_what_a_job_works_at_or_may_work_at_is_left_and_named(runs: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(runs / "stopped-b17e30cc")
    as_slurm_job(run)
    grow_old(runs)
    args = ("--older-than", "30", "--kinds", "failed", "stopped")
    assert len(listed(call, *args)[0]) == 1
    job = slurm.Job("77", json.loads(run.record.read_text())["submissions"][-1]["job_name"], "RUNNING", "1:00", "1", "n1", None, "squeue")
    monkeypatch.setattr(slurm, "queued", lambda ids=(), name=None: [job])
    assert listed(call, *args)[0] == {}, "RUNNING"

    def away(ids: object = (), name: object = None) -> list[slurm.Job]:
        raise slurm.SlurmError("squeue: no answer")

    monkeypatch.setattr(slurm, "queued", away)
    run.failure.write_text(json.dumps({"schema": 1, "job_id": "77", "rank": 0, "kind": "lost", "error": "E", "message": "m"}))
    grow_old(run.path)  # by its own records it failed; it may be in the queue again
    found, left = listed(call, *args)
    assert found == {} and "not known" in left.get("stopped-b17e30cc", ""), left
    monkeypatch.setattr(slurm, "queued", lambda ids=(), name=None: [])
    assert len(listed(call, *args)[0]) == 1
    run.lock.write_text(json.dumps({"schema": 1, "job_id": "5", "host": "elsewhere", "pid": 1, "time": time.time()}))
    assert "stopped-b17e30cc" not in listed(call, "--older-than", "0", "--kinds", "failed")[0], "a lock that is fresh"
    run.lock.unlink()
    run.heartbeat.touch()
    found, left = listed(call, "--older-than", "0", "--kinds", "failed", "stopped")
    assert found == {} and "sign of life" in left["stopped-b17e30cc"]


def test_protected_runs_and_those_that_others_name_stay(runs: Path, call: Told) -> None:
    args = ("--older-than", "30", "--weights", "--tables", "tables")
    config = runs / "stopped-b17e30cc/config.yaml"
    config.write_text(config.read_text().replace("  init: ''", f"  init: {runs}/other-11111111/weights.safetensors"))
    copy_run(runs, "done-edd1b7a1", "other-11111111")
    copy_run(runs, "done-edd1b7a1", "alone-22222222")
    copy_run(runs, "stopped-b17e30cc", "broken-33333333")
    grow_old(runs)
    found, left = listed(call, *args)
    weights = {path for path, kind in found.items() if kind == "weights"}
    assert "alone-22222222/weights.safetensors" in weights and "done-edd1b7a1/weights.safetensors" not in weights
    assert "names it" in left["done-edd1b7a1"], "the checkpoint of two cells"
    assert "other-11111111/weights.safetensors" not in weights, "train.init"
    assert found["broken-33333333"] == "failed"
    (runs.parent / "tables").mkdir()
    (runs.parent / "tables/mine.csv").write_text("run,top1\nruns/broken-33333333,4\nruns/alone-22222222,5\n")
    found, left = listed(call, *args)
    assert not {"broken-33333333", "alone-22222222/weights.safetensors"} & set(found)
    assert left["broken-33333333"].startswith("the table mine.csv names it")
    shutil.rmtree(runs.parent / "tables")
    assert call("--protect", "broken", "done-edd1b7a1")[0] == 0
    found, left = listed(call, *args)
    assert not any(path.startswith(("broken", "done-edd1b7a1/")) for path in found) and "protected" in left["broken-33333333"]
    assert call("--unprotect", "broken")[0] == 0
    assert "broken-33333333" in listed(call, *args)[0]


def test_weights_of_done_runs_go_only_where_that_is_asked_for(runs: Path, call: Told) -> None:
    copy_run(runs, "done-edd1b7a1", "alone-22222222")
    grow_old(runs)
    assert "weights" not in listed(call, "--older-than", "0")[0].values()
    assert call("--kinds", "weights")[0] == 2
    code, _, _ = call("--older-than", "0", "--delete", "--yes")
    assert code == 0 and (runs / "alone-22222222/weights.safetensors").exists()
    call("--older-than", "0", "--delete", "--yes", "--weights")
    assert not (runs / "alone-22222222/weights.safetensors").exists() and (runs / "alone-22222222/result.json").exists()


def test_features_stay_while_a_cell_may_ask_for_them_or_they_could_not_be_made_again(runs: Path, call: Told) -> None:
    for weights in ("run:edd1b7a1", "run:00000000", "scratch-seed0"):
        folder = runs / "features" / f"{weights.replace(':', '_')}-1b5c9d0e"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps({"weights": weights}))
        (folder / "aa.npy").write_bytes(bytes(1000))
    grow_old(runs)
    found, left = listed(call, "--kinds", "caches")
    assert set(found) == {"features/scratch-seed0-1b5c9d0e"}
    assert "seed1-finetune-78e23e68 is not done" in left["features/run_edd1b7a1-1b5c9d0e"]
    assert "not here any more" in left["features/run_00000000-1b5c9d0e"]
    shutil.copy(runs / "done-motion-2shot-seed0-finetune-0f11464a/result.json", runs / "done-motion-2shot-seed1-finetune-78e23e68")
    assert "features/run_edd1b7a1-1b5c9d0e" in listed(call, "--kinds", "caches")[0]
    (runs / "features/scratch-seed0-1b5c9d0e/bb.npy").touch()
    found, left = listed(call, "--kinds", "caches")
    assert set(found) == {"features/run_edd1b7a1-1b5c9d0e"} and "changed" in left["features/scratch-seed0-1b5c9d0e"]


def test_prepared_clips_stay_where_a_recording_is_gone(runs: Path, call: Told) -> None:
    footage = runs.parent / "footage"
    footage.mkdir()
    (footage / "a.mp4").touch()
    rows = [Row(str(footage / name), "", 100, 30.0, 3.0, 1000, 64, 48, "h264", 0, 0, 0, f"{i + 1:016x}", 1, "decord")
            for i, name in enumerate(("a.mp4", "b.mp4"))]
    pool = runs / "clips/256px-15fps-q90"
    pool.mkdir(parents=True)
    write_manifest(pool / "asked.csv", rows, [], Check("decord", True))
    grow_old(runs)
    found, left = listed(call, "--kinds", "caches")
    assert found == {} and "1 of the 2 recordings" in left["clips/256px-15fps-q90"] and "b.mp4" not in str(left)
    (footage / "b.mp4").touch()
    assert set(listed(call, "--kinds", "caches")[0]) == {"clips/256px-15fps-q90"}
    config = runs / "done-motion-2shot-seed1-finetune-78e23e68/config.yaml"
    config.write_text(config.read_text().replace("data:\n", f"data:\n  archives: {pool}\n"))
    assert listed(call, "--kinds", "caches")[0] == {}
    far = f"{'/a folder of many words' * 6}/{pool.name}"
    config.write_text(config.read_text().replace(f"data:\n  archives: {pool}\n", yaml.safe_dump({"data": {"archives": far}})))
    assert "\n    " in config.read_text() and far not in config.read_text(), "YAML folds it"
    assert listed(call, "--kinds", "caches")[0] == {}
    config.write_text("data: [")
    found, left = listed(call, "--kinds", "caches")
    assert found == {} and "is damaged" in left["clips/256px-15fps-q90"]


def test_equal_snapshots_share_their_files_and_each_run_keeps_all_of_its_own(runs: Path, call: Told) -> None:
    one, two = runs / "done-edd1b7a1/code", runs / "stopped-b17e30cc/code"
    add_code(copy_run(runs, "done-edd1b7a1", "other-11111111").path, **{"vidmae/__init__.py": "other"})
    grow_old(runs)
    before = contents(runs)
    assert listed(call, "--kinds", "snapshots")[0] == {"stopped-b17e30cc/code": "snapshots"}
    assert call("--kinds", "snapshots", "--delete", "--yes")[0] == 0
    assert contents(runs) == before
    assert all((one / name).stat().st_ino == (two / name).stat().st_ino for name in ("pyproject.toml", "vidmae/__init__.py"))
    assert listed(call, "--kinds", "snapshots")[0] == {}
    assert not (one / "pyproject.toml").stat().st_mode & 0o222, "who changes it would change both"
    shutil.copytree(runs / "stopped-b17e30cc", runs.parent / "moved", symlinks=True)  # as rsync -a does
    shutil.rmtree(runs / "done-edd1b7a1")
    assert contents(runs.parent / "moved/code") == contents(two) == {
        path.removeprefix("stopped-b17e30cc/code/"): what for path, what in before.items() if path.startswith("stopped-b17e30cc/code/")}


def test_the_code_of_a_job_is_left_as_it_is(runs: Path, call: Told) -> None:
    """Of an array that of all of its cells: one that waits for its turn starts in it."""
    array = runs / "arrays/20261128T080554-fewshot"
    add_code(array)
    shutil.rmtree(runs / "stopped-b17e30cc")
    for cell in runs.glob("done-motion-*"):
        (cell / "code").symlink_to("../arrays/20261128T080554-fewshot/code")
    grow_old(runs)
    assert listed(call, "--kinds", "snapshots")[0] == {"arrays/20261128T080554-fewshot/code": "snapshots"}
    lock = runs / "done-motion-2shot-seed1-finetune-78e23e68/lock.json"
    lock.write_text(json.dumps({"schema": 1, "job_id": "5", "host": "elsewhere", "pid": 1, "time": time.time()}))
    assert listed(call, "--kinds", "snapshots")[0] == {}


def test_links_are_not_followed(runs: Path, call: Told) -> None:
    elsewhere = runs.parent / "elsewhere"
    shutil.move(runs / "stopped-b17e30cc", elsewhere / "stopped-b17e30cc")
    (runs / "stopped-b17e30cc").symlink_to(elsewhere / "stopped-b17e30cc")
    shutil.move(runs / "done-edd1b7a1/checkpoints", elsewhere / "checkpoints")
    (runs / "done-edd1b7a1/checkpoints").symlink_to(elsewhere / "checkpoints")
    grow_old(runs)
    before = contents(elsewhere)
    found, left = listed(call, "--older-than", "30")
    assert set(found) == {"done-motion-2shot-seed1-finetune-78e23e68"}
    assert "link" in left["stopped-b17e30cc"] and "link" in left["done-edd1b7a1/checkpoints"]
    assert call("--older-than", "30", "--delete", "--yes")[0] == 0 and contents(elsewhere) == before


def test_ctrl_c_leaves_nothing_half_and_the_next_call_goes_on(runs: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        def interrupted(path: Path) -> None:
            next(each for each in path.rglob("*") if each.is_file()).unlink()
            raise KeyboardInterrupt

        patch.setattr(removal, "_delete", interrupted)
        code, _, err = call("--older-than", "30", "--kinds", "failed", "--delete", "--yes")
    assert code == 130 and "goes on" in err
    there = [path.name for path in runs.glob("*/run.json")] + [path.parent.name for path in runs.glob("*/run.json")]
    assert len([name for name in there if name in ("stopped-b17e30cc", "done-motion-2shot-seed1-finetune-78e23e68")]) == 1
    assert not (runs / ".trash/run.json").exists()
    found, _ = listed(call, "--kinds", "leftovers")
    assert list(found.values()) == ["leftovers"] and next(iter(found)).startswith(".trash/")
    assert call("--older-than", "30", "--kinds", "failed,leftovers", "--delete", "--yes")[0] == 0
    assert sorted(path.name for path in runs.iterdir()) == ["arrays", "done-edd1b7a1", "done-motion-2shot-seed0-finetune-0f11464a"]


def test_what_changes_after_the_list_stays(runs: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(runs / "stopped-b17e30cc")

    def changes(_: object) -> bool:
        record = json.loads(run.record.read_text())
        run.record.write_text(json.dumps({**record, "submissions": [*record["submissions"], {
            "state": "submitting", "job_id": None, "cluster": "slurm", "job_name": "x"}]}))
        return True

    monkeypatch.setattr(clean, "agreed", changes)
    code, _, err = call("--older-than", "30", "--kinds", "failed", "--delete")
    assert code == 0 and run.record.exists() and "left: stopped-b17e30cc: it has changed since it was listed" in err
    assert not (runs / "done-motion-2shot-seed1-finetune-78e23e68").exists()


def test_a_run_that_is_submitted_at_the_last_moment_stays(runs: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real = RunFolder(runs / "stopped-b17e30cc"), removal.one_launcher

    def launcher_first(folder: Path) -> AbstractContextManager[None]:
        if folder == run.path:
            record = json.loads(run.record.read_text())
            run.record.write_text(json.dumps({**record, "submissions": [*record["submissions"], record["submissions"][-1]]}))
        return real(folder)

    monkeypatch.setattr(removal, "one_launcher", launcher_first)
    code, _, err = call("--older-than", "30", "--kinds", "failed", "--delete", "--yes")
    assert code == 0 and run.record.exists() and "since it was listed" in err
    assert not (run.path / ".submitting.json").exists()


def test_what_is_named_at_the_last_moment_stays(runs: Path, call: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_run(runs, "done-edd1b7a1", "alone-22222222")
    grow_old(runs)
    real, locked = removal.one_launcher, list[str]()

    def sweep_first(folder: Path) -> AbstractContextManager[None]:
        locked.append(folder.name)
        if folder.name == "arrays":
            config = runs / "done-motion-2shot-seed1-finetune-78e23e68/config.yaml"
            config.write_text(config.read_text() + "also: run:22222222\n")
        return real(folder)

    monkeypatch.setattr(removal, "one_launcher", sweep_first)
    code, _, err = call("--weights", "--kinds", "checkpoints", "--delete", "--yes", "alone")
    assert code == 0 and (runs / "alone-22222222/weights.safetensors").exists() and "names it" in err
    assert locked.index("arrays") < len(locked) - 1 == len(locked) - 1 - locked[::-1].index("alone-22222222")


def test_a_damaged_record_stops_nothing_and_may_name_anything(runs: Path, call: Told) -> None:
    copy_run(runs, "done-edd1b7a1", "alone-22222222")
    (copy_run(runs, "done-edd1b7a1", "bad-33333333").record).write_text('{"submissions": [')
    grow_old(runs)
    found, left = listed(call, "--older-than", "30", "--weights")
    assert "done-edd1b7a1/checkpoints/step_00000023" in found and not {"weights", "failed"} & set(found.values())
    assert "damaged" in left["bad-33333333"] and "bad-33333333 is damaged and may name it" in left["alone-22222222"]


def test_tables_that_are_not_there_are_said_and_a_signature_in_one_protects(runs: Path, call: Told) -> None:
    copy_run(runs, "done-edd1b7a1", "alone-22222222")
    grow_old(runs)
    assert call("--tables", "tabels")[0] == 2 and "--tables" in call("--weights")[2]
    (runs.parent / "mine").mkdir()
    (runs.parent / "mine/results.csv").write_text("weights,top1\nrun:22222222,4\n")
    assert "alone-22222222/weights.safetensors" not in listed(call, "--weights", "--tables", "mine")[0]
    (runs.parent / "link").symlink_to(runs)
    references = find_references([], ())
    assert not references.starts_from(runs)
    config = runs / "done-motion-2shot-seed1-finetune-78e23e68/config.yaml"
    config.write_text(config.read_text().replace(f"{runs}", f"{runs.parent}/link").replace("HERE/runs/done-edd1b7a1", f"{runs.parent}/link/x"))
    assert find_references([RunFolder(config.parent)], ()).starts_from(runs / "x/weights.safetensors")
