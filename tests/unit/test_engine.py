"""The engine against plain torch: real deepspeed, one and two processes over gloo, ZeRO 0 to 3."""

import numpy as np
import pytest
import torch

from tests.program_engine import batch, build, lr_at
from tests.ranks import run_ranks
from vidmae.config import TrainConfig
from vidmae.engine import engine_config

CPU = torch.device("cpu")


def plain_torch(*, reset_at: int | None = None, steps: int = 6) -> dict:
    """The same training written out with torch alone."""
    net, groups = build()
    make = lambda: torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))  # noqa: E731
    optimizer, losses, norms = make(), [], []
    for step in range(steps):
        if step == reset_at:
            optimizer = make()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.zero_grad()
        loss = net(*batch(step))
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)))
        optimizer.step()
        losses.append(float(loss))
    return {"losses": losses, "norms": norms, "weights": {k: v.tolist() for k, v in net.named_parameters()}}


def train(tmp_path, stage, world, *, precision="fp32", micro=2, mode="plain") -> dict:
    ranks = run_ranks("tests.program_engine", str(stage), precision, str(micro), str(tmp_path), mode, world_size=world)
    assert all(r == ranks[0] for r in ranks), "every rank must see the same losses and weights"
    return ranks[0]


def assert_close(ours: dict, theirs: dict, rtol: float) -> None:
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=rtol)
    np.testing.assert_allclose(ours["norms"], theirs["norms"], rtol=max(rtol, 1e-4))
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, rtol=rtol, atol=10 * rtol, err_msg=name)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_every_stage_equals_plain_torch(tmp_path, stage, world):
    """With accumulation (2 x 2 clips on 2 ranks, 4 x 2 on one), clipping and weight decay."""
    assert_close(train(tmp_path, stage, world), plain_torch(), rtol=2e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_follows_float32_from_the_first_update(tmp_path, stage):
    """A wrong first update (0.735 of the rate) would move the second loss by more than this."""
    ours, theirs = train(tmp_path, stage, 2, precision="bf16"), plain_torch()
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-2)
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, atol=2e-2, err_msg=name)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_save_and_load_continue_exactly(tmp_path, stage):
    whole = train(tmp_path, stage, 2, mode="save")
    rest = train(tmp_path, stage, 2, mode="resume")
    assert rest["losses"] == whole["losses"][3:] and rest["norms"] == whole["norms"][3:]
    assert rest["weights"] == whole["weights"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_reset_equals_a_new_optimizer(tmp_path, stage):
    assert_close(train(tmp_path, stage, 2, mode="reset"), plain_torch(reset_at=3), rtol=2e-5)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_nan_on_one_rank_stops_all_before_the_update(tmp_path, stage):
    ours, theirs = train(tmp_path, stage, 2, mode="nan"), plain_torch(steps=2)
    assert ours["error"] == "the loss is nan" and len(ours["losses"]) == 2
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, rtol=2e-5, atol=2e-4, err_msg=name)


def test_precision_becomes_the_right_deepspeed_mode():
    def config(**kw):
        return engine_config(TrainConfig(**kw), micro_batch=1, grad_accum=1, device=CPU)

    assert "bf16" not in config(precision="bf16", zero_stage=0) and config(zero_stage=0)["torch_autocast"]["enabled"]
    assert config(precision="bf16", zero_stage=2)["bf16"] == {"enabled": True}
    assert not {"bf16", "fp16", "torch_autocast"} & set(config(precision="fp32"))
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        config(precision="fp16", zero_stage=2)
