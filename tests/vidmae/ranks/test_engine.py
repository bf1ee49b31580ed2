"""The engine against plain torch: real deepspeed, one and two processes over gloo, ZeRO 0 to 3."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.programs.engine import MOMENTUM, batch, build, lr_at
from tests.support.ranks import run_ranks
from vidmae.ranks.engine import engine_config
from vidmae.settings.config import TrainConfig

CPU = torch.device("cpu")


STAGES = [0, 1, 2, 3]
READS = ["0,bf16", "1,bf16", "2,fp32", "3,bf16"]
CASES = ([f"{s},{p},plain" for s in STAGES for p in ("fp32", "bf16")] + [f"{s},fp32,{m}" for s in STAGES for m in
         ("save", "resume", "reset", "nan", "inf")] + [f"{case},reads" for case in READS])
OFFLOAD = [f"{s},{p},offload-plain" for s in (1, 2, 3) for p in ("fp32", "bf16")] + \
          [f"{s},fp32,offload-{m}" for s in (1, 2, 3) for m in ("save", "resume", "nan")] + \
          ["2,fp32,offload-elastic:2:2", "3,fp32,offload-elastic:2:3"] + [f"{s},bf16,offload-reads" for s in (2, 3)]


UP = {4: ["2,fp32,elastic:2:2", "3,fp32,elastic:2:3", "2,bf16,elastic:2:2"], 8: ["3,fp32,elastic:4:3"]}
DOWN = {2: [f"{s},fp32,elastic:4:{s}" for s in (1, 2, 3)] + ["3,bf16,elastic:4:3", "2,fp32,elastic:2:3", "3,fp32,elastic:4:1"],
        1: ["2,fp32,elastic:4:2"]}


def plain_torch(*, reset_at: int | None = None, steps: int = 6) -> dict:
    """The same training written out with torch alone."""
    net, groups = build()
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    losses, norms, average = [], [], {name: value.detach().double() for name, value in net.named_parameters()}
    for step in range(steps):
        if step == reset_at:
            optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.zero_grad()
        loss = net(*batch(step))
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)))
        optimizer.step()
        losses.append(loss.item())
        average = {name: MOMENTUM * average[name] + (1 - MOMENTUM) * value.detach().double() for name, value in net.named_parameters()}
    return {"losses": losses, "norms": norms, "weights": {k: v.tolist() for k, v in net.named_parameters()}, "average": average}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Where all numbers of ranks save."""
    return str(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def two_ranks(folder) -> dict:
    """Every case on two ranks; all ranks must have seen the same."""
    first, second = run_ranks("tests.support.programs.engine", folder, *CASES, "2,bf16,save", *OFFLOAD, world_size=2)
    assert {c: r for c, r in first.items() if "nan" not in c} == {c: r for c, r in second.items() if "nan" not in c}
    assert [first[c]["error"] for c in CASES] == [second[c]["error"] for c in CASES]
    return first


@pytest.fixture(scope="module")
def one_rank(folder) -> dict:
    cases = [f"{s},fp32,plain" for s in STAGES]
    return run_ranks("tests.support.programs.engine", folder, *cases, world_size=1)[0]


@pytest.fixture(scope="module")
def elastic(folder, two_ranks) -> dict:
    """What continues on other numbers of ranks and in other stages; ranks now, case -> what happened."""
    of_four = ["1,fp32,save", "2,fp32,save", "3,fp32,save", "3,bf16,save"]
    four = run_ranks("tests.support.programs.engine", folder, *of_four, *UP[4], world_size=4)[0]
    return {(n, case): result for n, cases in (UP | DOWN).items() for case, result in
            (four if n == 4 else run_ranks("tests.support.programs.engine", folder, *cases, world_size=n)[0]).items()} | {
            (2, case): result for case, result in two_ranks.items()}


def assert_close(ours: dict, theirs: dict, rtol: float) -> None:
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=rtol)
    np.testing.assert_allclose(ours["norms"], theirs["norms"], rtol=max(rtol, 1e-4))
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, rtol=rtol, atol=10 * rtol, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_equals_plain_torch(one_rank, two_ranks, stage):
    """With accumulation (2 x 2 clips on 2 ranks, 4 x 2 on one), clipping and weight decay."""
    assert_close(one_rank[f"{stage},fp32,plain"], plain_torch(), rtol=2e-5)
    assert_close(two_ranks[f"{stage},fp32,plain"], plain_torch(), rtol=2e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_follows_float32_from_the_first_update(two_ranks, stage):
    """A wrong first update (0.735 of the rate) would move the second loss by more than this."""
    ours, theirs = two_ranks[f"{stage},bf16,plain"], plain_torch()
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-2)
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, atol=2e-2, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_save_and_load_continue_exactly(two_ranks, stage):
    whole, rest = two_ranks[f"{stage},fp32,save"], two_ranks[f"{stage},fp32,resume"]
    assert rest["losses"] == whole["losses"][3:] and rest["norms"] == whole["norms"][3:]
    assert rest["weights"] == whole["weights"]
    assert rest["looked"] <= 1, "each rank opens its own files by name; deepspeed by itself looks for those of all ranks"


@pytest.mark.parametrize("stage", STAGES)
def test_a_running_average_is_that_of_all_weights_so_far(two_ranks, stage):
    """Of the float32 weights in every stage; in 16 bits it would stand still. After a stop: the tests around."""
    ours, theirs = two_ranks[f"{stage},fp32,save"]["weights"], plain_torch()
    for name, value in theirs["average"].items():
        np.testing.assert_allclose(ours[f"average.{name}"], value.numpy(), rtol=2e-5, atol=2e-5, err_msg=name)
        assert np.abs(np.subtract(ours[name], value.numpy())).max() > 1e-3, "and not the weights themselves"
    assert {name for name in ours if name.startswith("average.")} == {f"average.{name}" for name in theirs["average"]}
    if stage == 2:
        half = torch.tensor(two_ranks["2,bf16,save"]["weights"]["average.a.weight"])
        np.testing.assert_allclose(half, theirs["average"]["a.weight"], atol=2e-2)
        assert not torch.equal(half, half.bfloat16().float()), "float32 beside weights of 16 bits"


def bits(tensor):
    """The bytes of a tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def content(value):
    """A loaded shard as something that == compares to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.shape, bits(value)  # padding is never written, and may happen to be NaN
    if isinstance(value, dict):
        return {key: content(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(v) for v in value]
    return content(vars(value)) if hasattr(value, "__dict__") else value


@pytest.mark.parametrize("stage", STAGES)
def test_a_copy_written_after_training_went_on_is_what_was_there(folder, two_ranks, stage):
    at_once = sorted(Path(folder, f"fp32-{stage}-2", "state").iterdir())
    assert len(at_once) == (2, 5, 5, 6)[stage]
    for path in at_once:
        first, later = (torch.load(p, weights_only=False) for p in (
            path, Path(folder, f"fp32-{stage}-2-later", "state", path.name)))
        assert content(first) == content(later), path.name


@pytest.mark.parametrize(("ranks", "case"), [(n, case) for n, cases in (UP | DOWN).items() for case in cases])
def test_another_number_of_ranks_or_stage_continues(elastic, ranks, case):
    """The weights are those that were saved, to the bit; what follows is the whole run's up to rounding."""
    precision, old_ranks, old_stage = case.split(",")[1], *case.split(":")[1:]
    whole, rest = elastic[int(old_ranks), f"{old_stage},{precision},save"], elastic[ranks, case]
    assert rest["saved"] == whole["saved"] and rest["saved"] != whole["weights"]
    rtol = 1e-5 if precision == "fp32" else 2e-3
    np.testing.assert_allclose(rest["losses"], whole["losses"][3:], rtol=rtol)
    for name, value in whole["weights"].items():
        np.testing.assert_allclose(rest["weights"][name], value, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_optimizer_in_host_memory_learns_the_same(two_ranks, stage):
    assert_close(two_ranks[f"{stage},fp32,offload-plain"], plain_torch(), rtol=2e-5)
    np.testing.assert_allclose(two_ranks[f"{stage},bf16,offload-plain"]["losses"], plain_torch()["losses"], rtol=1e-2)
    whole, rest = two_ranks[f"{stage},fp32,offload-save"], two_ranks[f"{stage},fp32,offload-resume"]
    assert rest["losses"] == whole["losses"][3:] and rest["weights"] == whole["weights"], "to the bit"
    assert two_ranks[f"{stage},fp32,offload-nan"]["error"].startswith("the loss is nan")


@pytest.mark.parametrize("stage", [2, 3])
def test_what_was_saved_without_offload_continues_with_it(two_ranks, stage):
    whole, rest = two_ranks[f"{stage},fp32,save"], two_ranks[f"{stage},fp32,offload-elastic:2:{stage}"]
    assert rest["saved"] == whole["saved"]
    np.testing.assert_allclose(rest["losses"], whole["losses"][3:], rtol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_reset_equals_a_new_optimizer(two_ranks, stage):
    assert_close(two_ranks[f"{stage},fp32,reset"], plain_torch(reset_at=3), rtol=2e-5)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("fault", "said"), [("nan", "the loss is nan"), ("inf", "the gradient norm is")])
def test_a_non_finite_number_on_one_rank_stops_all_before_the_update(two_ranks, stage, fault, said):
    ours, theirs = two_ranks[f"{stage},fp32,{fault}"], plain_torch(steps=2)
    assert ours["error"].startswith(said) and len(ours["losses"]) == 2
    for name, value in theirs["weights"].items():
        np.testing.assert_allclose(ours["weights"][name], value, rtol=2e-5, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("case", READS)
def test_a_step_reads_from_the_device_once(two_ranks, case):
    assert two_ranks[f"{case},reads"]["saved"] == {"vidmae": 1, "deepspeed": 0}


@pytest.mark.parametrize("stage", [2, 3])
def test_with_the_optimizer_in_host_memory_deepspeed_reads_no_parameter_by_itself(two_ranks, stage):
    """All norms come in one copy; of the two groups of parameters it reads the sum of each."""
    assert two_ranks[f"{stage},bf16,offload-reads"]["saved"] == {"vidmae": 2, "deepspeed": 2}


def test_no_rank_waits_for_the_import_of_a_compiler(two_ranks):
    assert not any(result["compiler"] for result in two_ranks.values())


def test_precision_becomes_the_right_deepspeed_mode():
    def config(**kw):
        return engine_config(TrainConfig(**kw), micro_batch=1, grad_accum=1, device=CPU)

    assert "bf16" not in config(precision="bf16", zero_stage=0) and config(precision="bf16", zero_stage=0)["torch_autocast"]["enabled"]
    assert config(precision="bf16", zero_stage=2)["bf16"] == {"enabled": True, "check_grad_overflow": False}
    assert not {"bf16", "fp16", "torch_autocast"} & set(config(precision="fp32"))
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        config(precision="fp16", zero_stage=2)
