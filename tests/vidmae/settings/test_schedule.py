"""Durations, learning rates and the split of a batch, against numbers worked out by hand or by brute force."""

import math

import pytest

from vidmae.runs.plan import make_plan, split_batch
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import Layer, build
from vidmae.settings.schedule import Duration, Phase, Schedule


@pytest.mark.parametrize(("text", "steps"), [
    ("10 steps", 10), ("1 step", 1), ("1 epoch", 3), ("2 epochs", 5), ("0.5 epochs", 2), ("1e3 clips", 16),
    ("64 clips", 1)])
def test_durations_in_steps(text, steps):
    """160 clips an epoch, 64 a step: 2.5 steps an epoch, rounded up once for the whole length."""
    assert Duration.parse(text).steps(clips_per_epoch=160, global_batch=64) == steps


@pytest.mark.parametrize("text", ["", "10", "epochs", "-3 epochs", "3 days", "1e steps", "3 epochs 2"])
def test_bad_durations(text):
    with pytest.raises(ValueError, match="1000 steps, 339 epochs, 2e6 clips"):
        Duration.parse(text)


def test_released_s_run_has_the_released_number_of_steps():
    """10,496 segments x 16 repeats / 256 clips = 656 steps an epoch exactly."""
    plan = make_plan(PretrainConfig(), videos=10_496, world_size=4)
    assert plan.steps_per_epoch == 656
    assert (plan.micro_batch, plan.grad_accum) == (64, 1)


def test_two_phases_with_warmup_and_cosine():
    phases = [Phase(Duration(10, "steps"), lr=1e-3, warmup=Duration(4, "steps"), schedule="cosine", min_lr=1e-5),
              Phase(Duration(5, "steps"), lr=None, blr=1e-4)]
    plan = Schedule.plan(phases, clips_per_epoch=1, global_batch=512)
    assert plan.total_steps == 15
    rates = [plan.lr_at(s) for s in range(15)]
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4:10] == pytest.approx([1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])
    assert rates[10:] == pytest.approx([2e-4] * 5)  # blr * 512 / 256
    assert [plan.phase_at(s) for s in (0, 9, 10, 14)] == [0, 0, 1, 1] and plan.start_of(1) == 10


def test_a_warmup_longer_than_its_phase_is_refused():
    with pytest.raises(ValueError, match=r"train\.phases\.0\.warmup is 9 steps = 9 steps, longer than its phase"):
        Schedule.plan([Phase(Duration(3, "steps"), warmup=Duration(9, "steps"))], clips_per_epoch=1, global_batch=1)


def test_every_split_is_exact_and_the_largest_allowed():
    for batch in range(1, 60):
        for world in range(1, 20):
            for most in (1, 3, 8, 64):
                if batch % world:
                    with pytest.raises(ValueError, match="do not divide"):
                        split_batch(batch, world, most)
                    continue
                micro, accum = split_batch(batch, world, most)
                assert world * micro * accum == batch and micro <= most
                assert not [m for m in range(micro + 1, most + 1) if batch // world % m == 0]


def test_a_batch_that_does_not_divide_names_the_nearest():
    said = r"24 ranks .*global_batch 256; nearest batches: 240, 264 .* rank counts: 16, 32"
    with pytest.raises(ValueError, match=said):
        split_batch(256, 24, 64)


def test_zero_videos_are_refused():
    config, _ = build(PretrainConfig, [Layer("x", {})])
    with pytest.raises(ValueError, match=r"prepare\.py manifest"):
        make_plan(config, videos=0, world_size=1)
