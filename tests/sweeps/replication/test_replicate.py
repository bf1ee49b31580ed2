"""The command of a replication: its steps are commands that exist, films are apart, and it goes on where it was stopped."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from analysis.page.replication.claims import CLAIMS
from jobs.submit.example import replicate, replicate_plan, replicate_run
from jobs.submit.example.demo_clips import FILMS, SHOTS, scenes
from jobs.submit.example.replicate_asked import claims_sha256
from jobs.submit.example.replicate_films import FILM, split
from jobs.submit.example.replicate_groups import write_groups
from jobs.submit.example.replicate_paper import COMMANDS
from jobs.submit.example.replicate_plan import SCALES, Step, data_steps, seed_steps
from tests.support.facilities import need
from tests.support.launching import ROOT
from vidmae.footage import manifest
from vidmae.settings.layers import ConfigError

TASKS = {"actions": "actions", "motion": "motion", "pictures": "digits"}
MODELS = {role: f"{role}-0123abcd" for role in ("video", "image", "shuffled", "part0.0625", "part0.25")}


def parse(words: list[str]) -> None:
    """Refuse a command whose flags its own parser does not take."""
    module = importlib.import_module(words[0].removesuffix(".py").replace("/", "."))
    if hasattr(module, "make_parser"):
        module.make_parser().parse_args(words[1:])
    else:
        assert set(words[1::2]) <= {"--out", "--clips", "--films", "--val"}


@pytest.mark.parametrize("scale", SCALES)
def test_every_step_is_a_command_that_exists(scale: str) -> None:
    chosen = SCALES[scale]
    steps = [*data_steps(chosen, footage="/videos", labelled="lists/actions"), *data_steps(chosen, footage="films", labelled="")]
    for seed in (0, 1):
        steps += seed_steps(chosen, seed, TASKS, 8)
    for step in steps:
        parse(list(step.words))
    assert {claim for step in seed_steps(chosen, 0, TASKS, 8) for claim in step.claims} == {claim.key for claim in CLAIMS}
    names = [step.name for step in seed_steps(chosen, 0, TASKS, 8)]
    assert len(set(names)) == len(names)  # each leaves a record of its own


def test_the_commands_of_the_paper_are_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for line in COMMANDS if not line.startswith("#")]
    assert all(words[0] == "python" for words in commands)
    for words in {tuple(words[1:]) for words in commands}:
        parse(list(words))
    seeds = [line for line in COMMANDS if "sweeps/pair.py" in line]
    assert len(seeds) == 5 and all(f"seed={i}" in line for i, line in enumerate(seeds))
    assert replicate.main(["--scale", "paper"]) == 0
    assert capsys.readouterr().out.splitlines() == list(COMMANDS)


def test_a_model_that_trains_less_footage_trains_as_many_steps_from_the_same_seed() -> None:
    steps = {step.role: step.words for step in seed_steps(SCALES["small"], 3, TASKS, 8) if step.role}
    sets = {role: {word for word in words if "=" in word and "global_batch=512" not in word and "micro_batch=512" not in word} for role, words in steps.items()}
    assert sets["part0.25"] == sets["part0.0625"] == sets["pair"] == sets["shuffled"] - {"data.clip=shuffled-frames"}
    assert "seed=3" in sets["pair"]


def test_films_to_pretrain_on_to_learn_from_and_to_be_tested_on_are_apart() -> None:
    of = {role: {shot.file for shot in shots} for role, shots in FILMS["apart"].items()}
    assert not of["motion"] & of["motion-val"] and FILM not in of["motion"] | of["motion-val"]
    assert FILMS["demo"] is SHOTS and scenes("motion", 3, 0) == scenes("motion", 3, 0, "demo")
    assert {scene.shot.file for scene in scenes("motion", 4, 0, "apart")} == of["motion"]


def labelled(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_no_recording_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    names = [f"{kind}/day{day}_{i}.mp4" for kind in ("wave", "jump, high") for day in (1, 2, 3, 4) for i in range(2)]
    folder, out = labelled(tmp_path / "clips", names), tmp_path / "lists/actions.csv"
    assert split(folder, r"day(\d)", out) == (2, 2)
    from vidmae.footage.manifest import find_sources
    sides = [find_sources(path) for path in (out, out.with_name("actions-val.csv"))]
    assert [len(side) for side in sides] == [8, 8] and {source.label for source in sides[1]} == {"wave", "jump, high"}
    days = [{Path(source.path).name[3] for source in side} for side in sides]
    assert days == [{"1", "2"}, {"3", "4"}]


@pytest.mark.parametrize(("split_by", "said"), [("(", "is no regular expression"), ("week", "is not found in the names of 4 of 4"),
                                                ("day", "finds one group in all 4"), (r"(?:ay(\d))?", "is not found in the names of 4 of 4")])
def test_a_split_that_cannot_be_made_is_refused(tmp_path: Path, split_by: str, said: str) -> None:
    folder = labelled(tmp_path, ["a/day1.mp4", "a/day2.mp4", "b/day1.mp4", "b/day2.mp4"])
    with pytest.raises(ConfigError, match=said):
        split(folder, split_by, tmp_path / "lists/actions.csv")


@pytest.mark.parametrize(("flags", "said"), [
    (["--labelled", "clips"], "--labelled FOLDER and --split-by REGEX go together"),
    (["--labelled", "clips", "--split-by", "x"], "give the recordings to pretrain on"),
    (["--footage", "nowhere"], "--footage nowhere is no folder"), (["--minutes", "0"], "--minutes 0 must be more than 0")])
def test_flags_that_do_not_go_together_are_refused(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replicate.main([*flags, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


class Told:
    """A family that runs nothing: it notes what it is told, and prints what a launcher would."""

    def __init__(self, printed: str, code: int = 0) -> None:
        self.printed, self.code, self.seen = printed, code, list[list[str]]()

    def run(self, words: list[str], folder: Path, out: Path, log: Path) -> tuple[int, float]:
        assert folder.is_dir()
        self.seen.append(list(words))
        out.write_text(self.printed)
        log.write_text("what went wrong\n")
        return self.code, 2.0

    def spent_by(self, pid: int) -> float:
        return float(pid)


def test_a_step_that_is_done_is_left_alone_and_another_command_is_run(tmp_path: Path) -> None:
    family, models = Told('{"run": "/runs/shuffled-0123abcd", "job_id": "40"}'), {"video": "video-1"}
    runner = replicate_run.Runner(tmp_path, family)
    step = Step("one", ("jobs/pretrain.py", "{video}", "[{duration: 3 steps}]"), ("order",), "shuffled")
    for _ in range(2):
        runner.do(step, tmp_path / "seed-0", models)
    assert [words[1:] for words in family.seen] == [[str(ROOT / "jobs/pretrain.py"), "video-1", "[{duration: 3 steps}]"]]
    assert models["shuffled"] == "shuffled-0123abcd"
    record = json.loads((tmp_path / "seed-0/steps/one.json").read_text())
    assert record["cpu_s"] == 42.0 and record["claims"] == ["order"]  # the command, and the job that outlived it
    runner.do(Step("one", ("jobs/pretrain.py", "other"), ("order",)), tmp_path / "seed-0", models)
    assert len(family.seen) == 2
    with pytest.raises(replicate_run.StepError, match=r"step two ended with exit code 3.*\nwhat went wrong"):
        replicate_run.Runner(tmp_path, Told("", 3)).do(Step("two", ("jobs/pretrain.py",)), tmp_path, {})
    assert not (tmp_path / "steps/two.json").exists()


def test_jobs_that_a_command_names_are_found() -> None:
    assert replicate_run.jobs_of('123\n{"jobs": ["7", "8"], "match": "frames"}\n/some/path\n{"job_id": null}\n') == [123, 7, 8]


def test_another_replication_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    args = replicate.make_parser().parse_args(["--scale", "tiny", "--out", str(tmp_path / "out"), "--seeds", "3"])
    replicate.Study.of(args)._claim_folder("abc")
    args.seeds = 5
    replicate.Study.of(args)._claim_folder("def")  # more seeds of the same
    args.footage = tmp_path
    with pytest.raises(ConfigError, match=r"other settings \(footage\)"):
        replicate.Study.of(args)._claim_folder("abc")
    asked = json.loads((tmp_path / "out/asked.json").read_text())
    assert asked["calls"] == [3, 5] and asked["first"].items() >= {"commit": "abc", "late": False, "claims_sha256": claims_sha256()}.items()


def test_footage_that_was_changed_is_refused_and_an_older_folder_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    footage, out = labelled(tmp_path / "videos", ["a/one.mp4", "b/two.mp4"]), tmp_path / "out"
    args = replicate.make_parser().parse_args(["--scale", "tiny", "--out", str(out), "--footage", str(footage)])
    replicate.Study.of(args)._claim_folder("abc")
    (footage / "notes.txt").write_text("no video")
    replicate.Study.of(args)._claim_folder("abc")
    asked = json.loads((out / "asked.json").read_text())
    labelled(footage, ["a/three.mp4"])
    with pytest.raises(ConfigError, match=r"those in --footage were changed since .*; change --out, or remove it"):
        replicate.Study.of(args)._claim_folder("abc")
    older = {key: value for key, value in asked.items() if key not in ("first", "calls", "footage_files", "labelled_files")}
    (out / "asked.json").write_text(json.dumps(older))
    replicate.Study.of(args)._claim_folder("abc")
    assert "was begun without notes of claims.py" in capsys.readouterr().err
    assert json.loads((out / "asked.json").read_text())["first"]["late"]


def test_fewer_seeds_hide_none_that_is_done(tmp_path: Path) -> None:
    labelled(tmp_path, ["seed-0/done.json", "seed-4/done.json"])
    args = replicate.make_parser().parse_args(["--scale", "tiny", "--out", str(tmp_path), "--seeds", "2"])
    assert replicate.Study.of(args)._all_seeds() == [0, 1, 2, 3, 4]
    args.seeds = 7
    assert replicate.Study.of(args)._all_seeds() == list(range(7))


def test_whatever_fails_in_a_seed_is_a_step_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("what it was")

    study = replicate.Study.of(replicate.make_parser().parse_args(["--scale", "tiny", "--out", str(tmp_path)]))
    monkeypatch.setattr(replicate.Study, "_seed", fail)
    study._work(replicate_run.Runner(tmp_path, Told("")), replicate.time.monotonic())
    assert {str(error) for error in study._failed} <= {f"seed {i}: what it was" for i in range(3)}
    assert all(isinstance(error, replicate_run.StepError) for error in study._failed) and study._failed


def test_clips_of_a_scene_and_of_a_recording_are_one_group(tmp_path: Path) -> None:
    def listed(data: str, files: list[str]) -> None:
        """A manifest of clips as they are, and one of what was prepared from them."""
        for name, prepared in ((f"{data}-full-val", False), (f"{data}-val", True)):
            found = [manifest.Row(f"/x/{file}", "a", 40, 7.5, 5.0, 9, 8, 8, "h264", 0, 0, 0, f"{i + 100 * prepared:016x}", 0, "pyav",
                                  source=f"{i:016x}" if prepared else "") for i, file in enumerate(files)]
            manifest.write_manifest(tmp_path / f"manifests/{name}.csv", found, [], manifest.Check("pyav", True))

    (tmp_path / "manifests").mkdir()
    listed("motion", ["pan left/00.mp4", "pan left/01.mp4", "still/00.mp4", "still/01.mp4"])
    listed("actions", ["run/day7_1.mp4", "run/day7_2.mp4", "sit/day9_1.mp4"])
    write_groups(tmp_path, r"day(\d)")
    found = json.loads((tmp_path / "groups.json").read_text())
    numbers = {data: [found[data][f"{i + base:016x}"] for base in (0, 100) for i in range(len(found[data]) // 2)] for data in found}
    assert numbers == {"motion": [0, 1, 0, 1] * 2, "actions": [0, 0, 1] * 2}
    assert "day" not in (tmp_path / "groups.json").read_text()


def test_no_seed_begins_that_would_end_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = replicate.make_parser().parse_args(["--scale", "tiny", "--out", str(tmp_path), "--seeds", "4", "--minutes", "1", "--parallel", "1"])
    study, clock = replicate.Study.of(args), iter(np.arange(0, 1000, 25.0))
    monkeypatch.setattr(replicate.time, "monotonic", lambda: float(next(clock)))  # a look at the clock takes 25 s
    monkeypatch.setattr(replicate.Study, "seed_steps", lambda *_: [])
    study._work(replicate_run.Runner(tmp_path, Told("")), 0.0)
    assert sorted(path.parent.name for path in tmp_path.glob("seed-*/done.json")) == ["seed-0"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The scale that tries all commands, run once: its folder and what it said."""
    need("clips")
    need("ffmpeg")
    out = tmp_path_factory.mktemp("replicate")
    done = subprocess.run([sys.executable, str(ROOT / "jobs/submit/example/replicate.py"), "--scale", "tiny", "--out", str(out)],
                          capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    yield out, done.stderr


@pytest.mark.slow
def test_all_claims_get_a_verdict_from_raw_films_and_a_second_call_runs_nothing(tried: tuple[Path, str]) -> None:
    out, _ = tried
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert {claim["key"] for claim in verdicts["claims"]} == set(replicate_plan.EVERY)
    assert all(part["effect"]["seeds"] == 3 for claim in verdicts["claims"] for part in claim["parts"])
    assert all(claim["cpu_s"] > 0 for claim in verdicts["claims"])
    again = subprocess.run([sys.executable, str(ROOT / "jobs/submit/example/replicate.py"), "--scale", "tiny", "--out", str(out)],
                           capture_output=True, text=True, cwd=out)
    assert again.returncode == 0 and [line for line in again.stderr.splitlines() if line.startswith("$")] == [f"$ cd {out}"]


NUMBER_OF_AN_EARLIER_PROCESS = """
import subprocess, sys
from pathlib import Path
from jobs.submit.example import replicate_run as r

family, start = r.Family(), subprocess.Popen

def with_a_number_that_was_used(*words, **options):
    process = start(*words, **options)
    family._ended[process.pid] = (0, 99.0)
    return process

wait4, waited = r.os.wait4, []

def somebody_else_was_first(pid, options):
    waited.append(pid)
    if len(waited) == 1:
        raise ChildProcessError
    return wait4(pid, options)

r.os.wait4 = somebody_else_was_first
r.subprocess.Popen = with_a_number_that_was_used
code, spent = family.run([sys.executable, "-c", "import time; time.sleep(0.2); exit(3)"], Path("."), Path("out"), Path("log"))
assert code == 3 and spent < 9 and len(waited) == 2, (code, spent, waited)
"""


def test_a_command_is_not_taken_for_an_earlier_one_of_the_same_number(tmp_path):
    """In a process of its own: the family waits for all children of its process."""
    done = subprocess.run([sys.executable, "-c", NUMBER_OF_AN_EARLIER_PROCESS], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
