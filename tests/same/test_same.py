"""The sameness check: it is green for a run that was killed and has other workers, and red for what it is there to find."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.same.compare import compare
from tests.support.facilities import need
from tests.support.launching import ROOT
from vidmae.model.weights import save_safetensors

torch = pytest.importorskip("torch")

SPOIL = '''
import random as _random
_read = VideoReader.read

def _spoiled(self, indices):
    frames = _read(self, indices).copy()
    if _random.SystemRandom().random() < 0.3:
        frames[0] = frames[-1]
    return frames

VideoReader.read = _spoiled
'''
UNSORTED = '''
_save_file = save_file  # 8 keys more: of so many, two orders of the library's are never the same

def save_file(tensors, path, metadata):
    _save_file(tensors, path, metadata={**metadata, **{f"more {i}": "" for i in range(8)}})

_sort_metadata = lambda path: None
'''


def check(*flags: str, cwd: Path, append: tuple[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The short check; with `append`, text at the end of a module of every snapshot (the job starts in it)."""
    need("clips")
    need("ffmpeg")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "VIDMAE_"))}
    if append:
        (cwd / "appended.py").write_text(append[1])
        assert (ROOT / "vidmae" / append[0]).is_file()
        (cwd / "profile.yaml").write_text(f"setup:\n  - cat '{cwd}/appended.py' >> vidmae/{append[0]}\n")
        env["VIDMAE_PROFILE"] = str(cwd / "profile.yaml")
    return subprocess.run([sys.executable, "-m", "tests.same.run", "--short", *flags], cwd=ROOT, env=env, text=True,
                          capture_output=True, timeout=500)


@pytest.mark.parametrize(("flags", "runs"), [
    pytest.param(("--no-cell",), ["pretraining"], marks=pytest.mark.slow),  # tests/vidmae/train/test_recovery.py kills, too
    pytest.param((), ["pretraining", "cell"], marks=pytest.mark.slow)])
def test_a_run_that_was_killed_and_has_other_workers_is_the_same(tmp_path, flags, runs):
    done = check(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == [f"{run}, killed-2-workers" for run in runs]
    assert all(int(files) > 20 and int(differing) == 0 for _, files, differing in rows)


@pytest.mark.slow  # what `compare` finds is held below
def test_a_decoder_that_spoils_a_frame_at_random_is_red(tmp_path):
    done = check("--no-cell", cwd=tmp_path, append=("footage/open_video.py", SPOIL))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"metrics\.jsonl: \d+\.loss", done.stdout) and "weights.safetensors: other bytes" in done.stdout
    assert "code/" not in done.stdout


@pytest.mark.slow  # test_equal_bytes.py holds the order, too
def test_a_random_order_in_the_header_of_weights_is_red(tmp_path):
    done = check("--no-cell", cwd=tmp_path, append=("model/weights.py", UNSORTED))
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[3:] == ["pretraining, killed-2-workers: weights.safetensors: other bytes"]


METRICS = [{"step": step, "loss": 1.0 / step, "step_s": 0.5, "lr": 0.1} for step in (1, 2)]
COMPLETE = {"step": 2, "save_s": 0.1, "files": {"state/a.pt": {"bytes": 3, "blake2b": "aa"},
                                                "metrics.jsonl": {"bytes": 9, "blake2b": "bb"}}}


@pytest.fixture
def pair(tmp_path):
    """Two run folders of two legs that hold the same."""
    runs = []
    for leg in ("one", "two"):
        run = tmp_path / leg / "runs" / "demo-0123"
        checkpoint = run / "checkpoints" / "step_00000002"
        (checkpoint / "state").mkdir(parents=True)
        (checkpoint / "state/a.pt").write_bytes(b"abc")
        (checkpoint / "COMPLETE").write_text(json.dumps(COMPLETE))
        (run / "submit" / leg).mkdir(parents=True)
        (run / "config.yaml").write_text(f"data:\n  workers: 1\n  flip_prob: 0.5\ntrain:\n  init: {run}/weights.safetensors\n")
        write_metrics(run)
        save_safetensors({"a": torch.zeros(3), "b": torch.ones(2)}, run / "weights.safetensors", {"model": "m"})
        runs.append(run)
    return runs


def write_metrics(run, **change):
    (run / "metrics.jsonl").write_text("".join(json.dumps({**line, **change}) + "\n" for line in METRICS))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_holds_the_same_is_the_same(pair):
    assert compare(*pair).differing == () and compare(*pair).files == 5


@pytest.mark.parametrize("change", [
    lambda run: write_metrics(run, step_s=0.75),
    lambda run: edit(run / "checkpoints/step_00000002/COMPLETE", "0.1", "0.2"),
    lambda run: edit(run / "checkpoints/step_00000002/COMPLETE", "bb", "cc"),
    lambda run: edit(run / "config.yaml", "workers: 1", "workers: 2"),
    lambda run: (run / "attempts.json").write_text("{}"),
    lambda run: (run / "submit/two/1_0_log.out").write_text("another job"),
])
def test_times_and_the_identity_of_an_attempt_do_not_count(pair, change):
    change(pair[1])
    assert compare(*pair).differing == ()


@pytest.mark.parametrize(("change", "found"), [
    (lambda run: write_metrics(run, loss=0.25), "metrics.jsonl: 0.loss, 1.loss"),
    (lambda run: write_metrics(run, new=1), "metrics.jsonl: 0.new, 1.new"),
    (lambda run: edit(run / "config.yaml", "0.5", "0.4"), "config.yaml: data.flip_prob"),
    (lambda run: edit(run / "config.yaml", str(run.parent.parent), "/else"), "config.yaml: train.init"),
    (lambda run: edit(run / "checkpoints/step_00000002/COMPLETE", "aa", "dd"),
     "checkpoints/step_00000002/COMPLETE: files.state/a.pt.blake2b"),
    (lambda run: (run / "checkpoints/step_00000002/state/a.pt").write_bytes(b"abd"),
     "checkpoints/step_00000002/state/a.pt: other bytes"),
    (lambda run: save_safetensors({"a": torch.zeros(3), "b": torch.tensor([1, 1 + 2**-20])}, run / "weights.safetensors",
                                  {"model": "m"}), "weights.safetensors: other bytes"),
    (lambda run: save_safetensors({"a": torch.zeros(3), "b": torch.ones(2)}, run / "weights.safetensors", {"model": "n"}),
     "weights.safetensors: other bytes"),
    (lambda run: (run / "quarantine.csv").write_text("row\n"), "quarantine.csv: only in the second"),
    (lambda run: (run / "checkpoints/step_00000002/state/a.pt").unlink(),
     "checkpoints/step_00000002/state/a.pt: only in the first"),
])
def test_what_differs_is_named(pair, change, found):
    change(pair[1])
    assert compare(*pair).differing == (found,)


def test_a_file_of_an_unknown_kind_that_differs_is_red(pair):
    for number, run in enumerate(pair):
        (run / "new.kind").write_text(str(number))
    assert compare(*pair).differing == ("new.kind: other bytes",)


def test_a_linked_folder_is_compared_too(pair, tmp_path):
    for run in pair:
        (run.parent / "arrays").mkdir()
        (run.parent / "arrays/a.py").write_text(f"x = '{run.parent.parent.name}'")
        (run / "code").symlink_to("../arrays")
    assert compare(*pair).differing == ("code/a.py: other bytes",)


def test_curves_are_compared_as_tensorboard_shows_them(pair):
    from torch.utils.tensorboard import SummaryWriter

    def write(run, values, first, *, name):
        board = SummaryWriter(str(run / "tensorboard"), purge_step=first, filename_suffix=name)
        for step, value in enumerate(values, first):
            board.add_scalar("loss", value, step)
            board.add_scalar("step_s", os.urandom(1)[0], step)
        board.close()
        newest = max((run / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns)
        seconds, rest = newest.name.removeprefix("events.out.tfevents.").split(".", 1)
        newest.rename(newest.with_name(f"events.out.tfevents.{int(seconds) + first}.{rest}"))  # not in the same second

    write(pair[0], [4.0, 3.0, 2.0], 1, name="whole")
    write(pair[1], [4.0, 9.0], 1, name="killed")  # step 2 is done again
    assert compare(*pair).differing == ("tensorboard: loss at step 2, loss at step 3",)
    write(pair[1], [3.0, 2.0], 2, name="continued")
    assert compare(*pair).differing == () and compare(*pair).files == 6
    shutil.rmtree(pair[1] / "tensorboard")
    assert len(compare(*pair).differing) == 1
