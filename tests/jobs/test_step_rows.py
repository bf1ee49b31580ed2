"""What a launcher says before it submits to GPUs: where the time of a step will go, and what the run costs then."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from jobs import pretrain
from tests.support.launching import write_manifest, write_program
from tests.support.site import SLURM
from vidmae.footage.manifest import summary_path

COST = {"ms_per_clip": {"1": 355.0, "16": 147.0}, "videos": 8, "num_frames": 16, "img_size": 224, "sampling_rate": 8,
        "target_fps": 30.0, "cpu": "one"}


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of child S's size, and a Slurm with nodes of 8 A100 and 64 cores."""
    for name, text in SLURM.items():
        write_program(tmp_path / "bin", name, text.replace("SUBMITTED", str(tmp_path / "submitted")))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    return write_manifest(tmp_path / "manifests/s.csv", videos=10_496)


def dry_run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert pretrain.main(["--dry-run", *args]) == 0
    return capsys.readouterr().err


def store(manifest: Path, cost: dict) -> None:
    record = json.loads(summary_path(manifest).read_text())
    summary_path(manifest).write_text(json.dumps({**record, "clip_cost": cost}))


def test_starved_by_data(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(manifest, COST)
    said = dry_run(capsys, "--nodes", "1")
    assert re.search(r"data: 147 ms per clip, 8 cores per GPU feed 54 clips/s, the GPU wants 11\d: it would wait 5\d %; "
                     r"python jobs/prepare.py footage s\n", said)
    assert re.search(r"step +arithmetic 272 ms at 40 % MFU \(assumed", said) and re.search(r"slowest +data: python jobs/prepare", said)
    hours = float(re.search(r"cost +about ([\d,.]+) GPU-hours", said)[1].replace(",", ""))
    assert hours == pytest.approx(59.45e6 * 0.147 / 8 / 3600, rel=0.01)  # clips, and cores that feed a GPU
    arithmetic = float(re.search(r"of it arithmetic ([\d,.]+) GPU-hours", said)[1].replace(",", ""))
    assert arithmetic == pytest.approx(59.45e6 * 1.061e12 / (0.4 * 312e12) / 3600, rel=0.01)


def test_repeats_that_a_micro_batch_has_no_room_for(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """64 GPUs share 256 clips: 4 of a video's 16 repeats meet in one micro-batch, so videos are opened more often."""
    store(manifest, COST)
    said = dry_run(capsys, "--nodes", "8")
    assert "data: 189 ms per clip" in said and "200 Gbit/s between nodes assumed" in said
    assert re.search(r"slowest +links: fewer nodes", said)


def test_an_optimizer_on_the_cpu(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """8 A100: each updates an eighth of the weights with the cores that its loader leaves, and the states leave the GPU."""
    plain, said = dry_run(capsys, "--nodes", "1"), dry_run(capsys, "--nodes", "1", "--set", "train.offload=optimizer",
                                                            "--set", "checkpoint.memory_steps=5")
    assert "offload" not in plain and re.search(r" offload: [\d.]+ ms not hidden; gradients [\d.]+ ms to the host", said)
    assert re.search(r"the optimizer takes about 10\.8 GiB of a node's memory", said)  # 18 bytes of 645.5 million parameters
    assert "copies every 5 steps take about 16.8 GiB" in said and "copies" not in plain  # twice 14 bytes of them
    gib = [float(re.search(r"ZeRO 1: ([\d.]+)", text)[1]) for text in (plain, said)]
    assert gib[0] - gib[1] == pytest.approx(12 * 645_534_104 / 8 / 2**30, abs=0.02)


def test_decoder_masking_and_checkpointing_are_in_the_plan(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = dry_run(capsys, "--nodes", "1")
    half = dry_run(capsys, "--nodes", "1", "--set", "model.decoder_mask_ratio=0.5")
    again = dry_run(capsys, "--nodes", "1", "--set", "model.activation_checkpointing=2")
    ms = [float(re.search(r"arithmetic ([\d.]+) ms", text)[1]) for text in (plain, half, again)]
    assert ms[0] / ms[1] == pytest.approx(1.16, abs=0.01) and ms[2] / ms[0] == pytest.approx(7 / 6, rel=0.01)
    gib = [float(re.search(r"activations of about ([\d.]+) GiB", text)[1]) for text in (plain, half, again)]
    assert gib[1] < gib[0] and 0.6 < gib[2] / gib[0] < 0.7
    assert "922 of 1,844 hidden ones rebuilt" in half and "rebuilt" not in plain


def test_a_step_that_will_hardly_fit_is_told_beforehand(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An A100 has 80 GiB at most; 1,024 clips keep 12 numbers of 16 bits per token and channel of each block, and more."""
    assert "a GPU will need" not in dry_run(capsys, "--nodes", "1")
    many = ("--nodes", "1", "--set", "train.global_batch=8192", "--set", "train.micro_batch=1024")
    said = " ".join(dry_run(capsys, *many).split())
    found = re.search(r"a GPU will need about (\d+) GiB \(estimated; 3 of states, (\d+) of activations with train.micro_batch 1024\), "
                      r"and A100 has 80 at most: --set train.micro_batch=auto finds", said)
    assert found, said
    blocks = 1024 * 12 * 2 * (32 * 205 * 1280 + 4 * 2049 * 512) / 2**30
    assert 1.0 < int(found[2]) / blocks < 1.2 and int(found[1]) - int(found[2]) in (2, 3, 4)
    assert "a GPU will need" not in dry_run(capsys, *many[:-1], "train.micro_batch=auto"), "a run finds what fits"


def test_a_manifest_without_it(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = dry_run(capsys, "--nodes", "1")
    assert "data: the CPU time of a clip was not measured; python jobs/prepare.py manifest FOLDER --name s measures it" in said
    assert "if the GPUs never wait for clips" in said


def test_another_clip_than_the_measured_one(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(manifest, COST)
    said = dry_run(capsys, "--recipe", "pretrain_s_vith14_448")
    assert "CPU times were measured for clips of 16 frames of 224 px" in said
