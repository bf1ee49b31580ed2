"""The parts of a step against arithmetic by hand, a ring that is played, a play of the buckets, and what the author's run took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidmae.ranks.engine import engine_config
from vidmae.runs import cost, step_time
from vidmae.runs.gpus import GPUS, find_gpu
from vidmae.runs.step_time import Machine, Mfu, Work
from vidmae.settings.config import PretrainConfig, TrainConfig
from vidmae.settings.layers import build, parse_set
from vidmae.settings.sizes import model_shape

HUGE, PARAMETERS = model_shape("mae_vit_huge_patch14"), 645_534_104
H100 = GPUS["H100"]
ONE, EIGHT = Machine(H100, 1, 8, 16), Machine(H100, 8, 8, 16, link_gbit=200)
WORK = Work(HUGE, micro_batch=64, grad_accum=1, precision="bf16", zero_stage=2, checkpointing=0, workers=16, clip_cpu_ms=None)
RECORD = {"ms_per_clip": {"1": 355.0, "16": 147.0}, "videos": 8, "num_frames": 16, "img_size": 224, "sampling_rate": 8,
          "target_fps": 30.0, "cpu": "one"}


def test_arithmetic_by_hand() -> None:
    time = step_time.step_time(WORK, ONE)
    assert time.mfu.share == 0.4 and "assumed" in time.mfu.source and "H100" in time.mfu.source
    assert time.arithmetic_s == pytest.approx(64 * 1.0612e12 / (989.4e12 * 0.4), rel=1e-3)
    assert step_time.step_time(WORK, ONE, mfu=Mfu(0.5, "x")).arithmetic_s == pytest.approx(0.8 * time.arithmetic_s)
    again = step_time.step_time(replace(WORK, checkpointing=1), ONE).arithmetic_s / time.arithmetic_s
    assert again == pytest.approx(4 / 3, rel=0.01)  # the forward pass twice
    half = step_time.step_time(replace(WORK, checkpointing=2), ONE).arithmetic_s / time.arithmetic_s
    assert half == pytest.approx(7 / 6, rel=0.01)
    third = step_time.step_time(replace(WORK, checkpointing=3), ONE)  # blocks 0, 3 ... 30 of 32, and 0, 3 of the decoder's 4
    assert third.arithmetic_s / time.arithmetic_s == pytest.approx(1 + 11 / 32 / 3, rel=0.015)


def test_memory_by_hand() -> None:
    kept = 64 * cost.activation_gib(HUGE, micro_batch=1, precision="bf16", checkpointing=False) * 2**30
    assert step_time.memory_bytes(WORK, 8) == pytest.approx(4 * 2 * PARAMETERS + 5 * kept + 28 * PARAMETERS / 8)
    twice = replace(WORK, micro_batch=32, grad_accum=2, zero_stage=0)  # the same clips: weights are read once more
    assert step_time.memory_bytes(twice, 8) == pytest.approx(2 * 4 * 4 * PARAMETERS + 5 * kept + 28 * PARAMETERS)
    assert step_time.step_time(WORK, ONE).memory_s == pytest.approx(step_time.memory_bytes(WORK, 8) / (3350e9 * 0.8))


def played_ring(nodes: int, gpus: int, chunks_each: int) -> tuple[int, int]:
    """Most chunks that leave a GPU and a node in a ring all-reduce, rank by rank around the nodes, of n chunks."""
    n, out_of_gpu, out_of_node = nodes * gpus, {}, {}
    for _ in range(2 * (n - 1)):  # n - 1 rounds reduce and scatter, n - 1 gather: everyone sends a chunk to its right
        for rank in range(n):
            out_of_gpu[rank] = out_of_gpu.get(rank, 0) + chunks_each
            if rank // gpus != (rank + 1) % n // gpus:
                out_of_node[rank // gpus] = out_of_node.get(rank // gpus, 0) + chunks_each
    return max(out_of_gpu.values()), max(out_of_node.values(), default=0)


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 8), (2, 4), (8, 8), (16, 1)])
def test_the_ring_against_one_that_is_played(nodes: int, gpus: int) -> None:
    machine, size = Machine(H100, nodes, gpus, 16, link_gbit=100), 1e9
    of_gpu, of_node = (count * size / (nodes * gpus) for count in played_ring(nodes, gpus, 1))
    expected = max(of_gpu / 450e9 if gpus > 1 else 0, of_node / 12.5e9 if nodes > 1 else 0) / 0.8
    assert step_time.ring_s(size, machine, passes=2) == pytest.approx(expected)
    assert step_time.ring_s(size, Machine(H100, 1, 1, 16), passes=2) == 0


@pytest.mark.parametrize(("stage", "accum", "passes", "number"), [
    (0, 1, 2, 4), (0, 4, 2, 4),    # float32 gradients once
    (1, 1, 3, 2), (1, 4, 3, 2),    # all-reduce, and the weights gathered
    (2, 1, 3, 2), (2, 4, 9, 2),    # all-reduce in every micro-batch
    (3, 1, 3, 2), (3, 4, 12, 2)])  # and there everything
def test_what_is_sent_by_stage(stage: int, accum: int, passes: int, number: int) -> None:
    time = step_time.step_time(replace(WORK, zero_stage=stage, grad_accum=accum), ONE)
    assert time.traffic.gigabytes == pytest.approx(passes * 7 / 8 * PARAMETERS * number / 1e9)
    assert time.traffic.reduce_s + time.traffic.gather_s == pytest.approx(time.traffic.gigabytes / 450 / 0.8)


def test_what_the_backward_pass_hides() -> None:
    slow, fast = (step_time.link_traffic(WORK, EIGHT, seconds, bucket_numbers=PARAMETERS // 2 + 1) for seconds in (0.01, 1.0))
    assert slow.reduce_s == fast.reduce_s and slow.exposed_s > fast.exposed_s
    assert fast.exposed_s == pytest.approx(fast.reduce_s / 2 + fast.gather_s)  # two buckets: the last one comes after the pass
    many = step_time.link_traffic(WORK, EIGHT, 1.0, bucket_numbers=PARAMETERS // 100 + 1)
    assert many.exposed_s == pytest.approx(many.reduce_s / 100 + many.gather_s)
    assert slow.exposed_s == pytest.approx(slow.reduce_s + slow.gather_s - 0.01 * 2 / 3 / 2)  # the link starts after one half
    whole = step_time.link_traffic(replace(WORK, zero_stage=0), EIGHT, 1.0)
    assert whole.exposed_s == whole.reduce_s and whole.gather_s == 0
    assert step_time.link_traffic(replace(WORK, zero_stage=3), EIGHT, 1.0).exposed_s == 0


def test_an_optimizer_in_the_host_s_memory_by_hand() -> None:
    """ViT-H on one H100: 51.2 GB/s to the host, 8 cores that the loader leaves move 200 GB/s, and nobody shares the node."""
    alone, work = Machine(H100, 1, 1, 16), replace(WORK, workers=8, offload=True)
    plain, off = step_time.step_time(replace(work, offload=False), alone), step_time.step_time(work, alone)
    assert off.offload.down_s == pytest.approx(4 * 645.534104e6 / 51.2e9) == pytest.approx(0.05043, rel=1e-3)
    assert off.offload.up_s == pytest.approx(0.02522, rel=1e-3)  # in 16 bits
    assert off.offload.update_s == pytest.approx(42 * 645.534104e6 / 200e9) == pytest.approx(0.13556, rel=1e-3)
    assert off.arithmetic_s * 2 / 3 > off.offload.down_s  # so that the backward pass hides it
    assert off.step_s == pytest.approx(plain.step_s + 0.02522 + 0.13556, rel=1e-3) and off.slowest == "arithmetic"
    assert plain.offload == step_time.Offload() and off.memory_s < plain.memory_s
    assert step_time.memory_bytes(replace(work, offload=False), 1) - step_time.memory_bytes(work, 1) == 28 * PARAMETERS


def test_what_makes_an_update_on_the_cpu_slow() -> None:
    few = step_time.step_time(replace(WORK, micro_batch=4, offload=True), Machine(H100, 1, 1, 16))  # 16 workers leave one core
    assert few.offload.update_s == pytest.approx(42 * PARAMETERS / 25e9) and few.slowest == "offload"
    assert step_time.advice(few, "s") == "--set train.offload=none where the states fit, or more --cpus-per-task"
    assert few.offload.exposed_s == pytest.approx(few.offload.whole_s - 2 / 3 * few.arithmetic_s)
    eight = step_time.step_time(replace(WORK, micro_batch=1, workers=8, offload=True), ONE)  # 8 GPUs share 240 GB/s and the weights
    assert eight.offload.update_s == pytest.approx(42 * PARAMETERS / 8 / 30e9)
    assert step_time.advice(eight, "s").endswith("more GPUs, which share the update")
    assert "update 113 ms at 30 GB/s on 8 cores (assumed)" in step_time.offload_line(eight)


@pytest.mark.parametrize(("stage", "accum", "precision", "down", "up"), [
    (1, 4, "bf16", 4, 2), (2, 1, "bf16", 4, 2), (2, 4, "bf16", 4 + 4 * 2, 3 * 2 + 2), (3, 2, "fp32", 4 + 2 * 4, 4 + 4)])
def test_what_passes_the_link_to_the_host(stage: int, accum: int, precision: str, down: int, up: int) -> None:
    """Bytes per parameter of a rank's share: gradients once, sums after each of several passes and back before all but one."""
    work = replace(WORK, zero_stage=stage, grad_accum=accum, precision=precision, offload=True)
    assert step_time.step_time(work, ONE).offload.gigabytes == pytest.approx((down + up) * PARAMETERS / 8 / 1e9)


def test_a_setting_becomes_work() -> None:
    config = build(PretrainConfig, parse_set(["train.offload=optimizer", "model.activation_checkpointing=3",
                                              "model.decoder_mask_ratio=0.5"]))[0]
    work = step_time.work_of(config, micro_batch=2, grad_accum=1, clip_ms=None)
    assert work.offload and work.checkpointing == 3 and work.shape.num_rebuilt == 922
    whole = step_time.step_time(replace(work, shape=HUGE, checkpointing=0), ONE)
    half = step_time.step_time(replace(work, checkpointing=0), ONE)
    assert whole.arithmetic_s / half.arithmetic_s == pytest.approx(1.16, abs=0.005) and half.memory_s < whole.memory_s


def test_a_teacher_is_counted() -> None:
    """Of ViT-H it computes three times the rest, is gathered after each update, and moves numbers through the memory."""
    config = build(PretrainConfig, parse_set(["model.target=features"]))[0]
    work = step_time.work_of(config, micro_batch=32, grad_accum=1, clip_ms=None)
    plain = replace(work, shape=PretrainConfig().model.shape())
    ours, theirs = (step_time.step_time(each, ONE) for each in (work, plain))
    assert ours.arithmetic_s / theirs.arithmetic_s == pytest.approx(4.07, abs=0.05)
    gathered_s = step_time.ring_s(2 * cost.parameters(work.shape), ONE, passes=1)
    assert ours.traffic.gather_s == pytest.approx(2 * gathered_s) and ours.traffic.exposed_s >= gathered_s
    more = cost.teacher_bytes(work.shape, clips=32, passes=1, precision="bf16", number=2, averaged=1 / 8)
    by_hand = 32 * 2 * 12 * 32 * 2049 * 1280 * 2 + cost.parameters(work.shape) * (2 + 2 * 2 + 12 / 8)
    assert more == pytest.approx(by_hand) and cost.teacher_bytes(plain.shape, clips=32, passes=1, precision="bf16", number=2, averaged=1) == 0
    alone = step_time.step_time(replace(work, zero_stage=0), ONE)
    assert alone.traffic.gather_s == 0


def test_the_buckets_are_those_of_the_engine() -> None:
    config = engine_config(TrainConfig(), micro_batch=1, grad_accum=1, device=torch.device("cuda"))["zero_optimization"]
    assert config.get("reduce_bucket_size", 500_000_000) == step_time.BUCKET_NUMBERS and config["overlap_comm"]


def test_the_sentence_on_clips() -> None:
    time = step_time.step_time(replace(WORK, clip_cpu_ms=147.0), ONE, mfu=Mfu(0.45, "x"))
    assert step_time.data_line(time, "s").startswith("data: 147 ms per clip, 16 cores per GPU feed 109 clips/s, the GPU wants 410:")
    assert step_time.data_line(time, "s").endswith(": it would wait 73 %; python jobs/prepare.py footage s")
    assert time.wait == pytest.approx(1 - (16 / 0.147) / time.wanted_clips_per_s) and time.slowest == "data"


def test_workers_that_are_fewer_than_cores() -> None:
    time = step_time.step_time(replace(WORK, clip_cpu_ms=40.0, workers=8), ONE)
    assert time.fed_clips_per_s == pytest.approx(200)
    assert "8 of 16 cores per GPU (data.workers 8)" in step_time.data_line(time, "s")
    assert step_time.data_line(time, "s").endswith("; --set data.workers=16")  # 400 clips/s are enough: nothing is prepared
    slower = step_time.step_time(replace(WORK, clip_cpu_ms=100.0, workers=8), ONE)
    assert step_time.advice(slower, "s") == "python jobs/prepare.py footage s, and --set data.workers=16"


def test_footage_that_is_prepared_is_not_prepared_again() -> None:
    time = step_time.step_time(replace(WORK, clip_cpu_ms=147.0, prepared=True), ONE)
    assert step_time.data_line(time, "s-256").endswith("; more --cpus-per-task, a larger --set data.repeat_aug, or --set data.repeat_window=near")
    fewer = step_time.step_time(replace(WORK, clip_cpu_ms=100.0, workers=8, prepared=True), ONE)
    assert step_time.advice(fewer, "s-256") == "--set data.workers=16"


def test_a_rank_that_reads_itself_waits_for_every_clip() -> None:
    time = step_time.step_time(replace(WORK, clip_cpu_ms=1.0, workers=0), ONE)
    assert time.step_s == pytest.approx(time.gpu_s + 0.064) and time.wait == pytest.approx(0.064 / time.step_s)


def test_fed_and_unknown() -> None:
    fed = step_time.step_time(replace(WORK, clip_cpu_ms=2.0), ONE)
    assert step_time.data_line(fed, "s").endswith("it would not wait") and fed.slowest == "arithmetic" and fed.wait == 0
    unknown = step_time.step_time(WORK, ONE)
    assert "not measured; python jobs/prepare.py manifest FOLDER --name s" in step_time.data_line(unknown, "s")
    assert unknown.fed_clips_per_s is None and unknown.wait == 0


def test_the_slowest_may_be_links_or_memory() -> None:
    few = step_time.step_time(replace(WORK, micro_batch=4), EIGHT)
    assert few.slowest == "links" and "fewer nodes" in step_time.advice(few, "s") and "zero_stage" not in step_time.advice(few, "s")
    repeated = step_time.step_time(replace(WORK, micro_batch=2, grad_accum=2), EIGHT)
    assert "--set train.zero_stage=1" in step_time.advice(repeated, "s")
    alone = step_time.step_time(replace(WORK, micro_batch=1, zero_stage=1), Machine(H100, 1, 1, 16))
    assert alone.slowest == "memory"


@pytest.mark.parametrize(("clip_ms", "low_h", "high_h"), [(568.0, 672, 1000), (376.0, 450, 672)])
def test_what_the_author_s_run_took(clip_ms: float, low_h: float, high_h: float) -> None:
    """160 epochs of 536,000 clips took about a week on four H100 with 16 workers each, 672 hours; 65 at 40 % of the peak.

    Source: README of eminorhan/optimized-stmae. 568 ms is a clip of a raw recording with decord, 376 ms one of 60-s pieces.
    """
    clips = 162 * 536_000
    plain = cost.gpu_hours(HUGE, clips=clips, peak_tflops=H100.peak_tflops)
    time = step_time.step_time(replace(WORK, clip_cpu_ms=clip_ms), Machine(H100, 1, 4, 16))
    assert plain == pytest.approx(65, abs=1)
    assert low_h < time.gpu_hours(clips) < high_h


def test_repeats_between_those_that_were_measured() -> None:
    """a + b / repeats through both measured points."""
    times = [step_time.clip_cpu_ms(RECORD, n) for n in (1, 2, 4, 16, 64)]
    b = (355 - 147) / (1 - 1 / 16)
    assert times == pytest.approx([355, 355 - b / 2, 355 - 3 * b / 4, 147, 147])
    assert step_time.clip_cpu_ms(None, 16) is None and step_time.clip_cpu_ms(RECORD, 16, "near") == 147
    near = {**RECORD, "near_ms_per_clip": 60.0}
    assert [step_time.clip_cpu_ms(near, n, "near") for n in (1, 16)] == [355, 60] and step_time.clip_cpu_ms(near, 16) == 147


def test_clips_of_another_kind_than_those_measured() -> None:
    own = build(PretrainConfig, [])[0]
    assert step_time.other_clip(RECORD, own) == "" == step_time.other_clip(None, own)
    assert "16 frames of 448 px" in step_time.other_clip({**RECORD, "img_size": 448}, own)


def test_measured_mfu(tmp_path: Path) -> None:
    path = tmp_path / "mfu.yaml"
    row = "  - {{gpu: {}, model: mae_vit_huge_patch14, micro_batch: {}, mfu: {}, date: 2026-01-31, versions: torch 2.11.0}}\n"
    path.write_text("rows:\n" + row.format("H100", 8, 0.3) + row.format("h100", 64, 0.52) + row.format("H200", 64, 0.6))
    found = step_time.find_mfu(H100, "mae_vit_huge_patch14", 48, path)
    assert found == Mfu(0.52, "measured on H100, micro_batch 64, 2026-01-31, torch 2.11.0")
    assert step_time.find_mfu(H100, "mae_vit_huge_patch14", 4, path).share == 0.3
    assert step_time.find_mfu(H100, "mae_vit_base_patch16", 64, path).share == 0.4
    for number, wrong in enumerate((row.format("H100", 8, 30), row.format("Z9", 8, 0.3), "  - {gpu: H100}\n")):
        bad = tmp_path / f"bad{number}.yaml"
        bad.write_text("rows:\n" + wrong)
        with pytest.raises(ValueError, match="allowed: gpu of vidmae"):
            step_time.measured(bad)


def test_the_table_that_comes_with_the_suite_can_be_read() -> None:
    assert all(0 < row["mfu"] <= 1 for row in step_time.measured(step_time.MEASURED_MFU))


@pytest.mark.parametrize(("device", "memory_gb_s", "link_gb_s"), [
    ("NVIDIA H100 80GB HBM3", 3350, 450), ("NVIDIA H100 PCIe", 2000, 64), ("NVIDIA A100-SXM4-80GB", 2039, 300),
    ("NVIDIA A100 80GB PCIe", 1935, 32), ("a100", 1555, 300), ("NVIDIA H200", 4800, 450), ("Tesla V100-SXM2-16GB", 900, 150)])
def test_bandwidths(device: str, memory_gb_s: float, link_gb_s: float) -> None:
    gpu = find_gpu(device)
    assert gpu is not None and (gpu.memory_gb_s, gpu.link_gb_s) == (memory_gb_s, link_gb_s)
