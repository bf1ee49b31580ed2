"""Compiled blocks against eager ones: the same numbers, no break in a graph, nothing compiled twice."""

import pytest
import torch
from torch._dynamo.utils import counters

from tests.support.facilities import need
from vidmae.model import compiled
from vidmae.model.blocks import Block
from vidmae.model.classifier import build_classifier
from vidmae.model.mae import build_mae
from vidmae.model.masking import random_mask

CLIPS = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def mae(**settings):
    torch.manual_seed(0)
    return build_mae("mae_vit_nano_patch16", img_size=32, num_frames=4, pred_t_dim=4, decoder_embed_dim=48, decoder_depth=2,
                     decoder_num_heads=4, mask_ratio=0.75, **settings)


def classifier(drop_path=0.5):
    torch.manual_seed(0)
    return build_classifier("vit_nano_patch16", num_classes=3, img_size=32, num_frames=4, drop_path=drop_path).train()


def mae_step(model, *, autocast=False):
    mask = random_mask(model.shape.num_tokens, 0.75, 2, generator=torch.Generator().manual_seed(1))
    return step(model, lambda: model(CLIPS, mask), autocast=autocast)


def classifier_step(model, *, autocast=False):
    return step(model, lambda: model(CLIPS).float().square().mean(), autocast=autocast)


def step(model, loss_of, *, autocast):
    torch.manual_seed(2)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = loss_of()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_equal(ours, theirs, tolerance, of_gradients=None):
    assert abs(ours[0] - theirs[0]) <= tolerance * abs(theirs[0])
    for name, grad in theirs[1].items():
        if not name.endswith("attn.k.bias"):  # the true gradient is zero, what is left is rounding
            assert (ours[1][name] - grad).norm() <= (of_gradients or tolerance) * grad.norm(), name


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs_and_breaks():
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


@pytest.mark.parametrize(("make", "one_step", "kinds"), [
    (lambda: mae(activation_checkpointing=2), mae_step, 2),        # encoder and decoder, 5 blocks in all
    (classifier, classifier_step, 2)])                             # with and without drop path
def test_blocks_share_graphs_without_a_break_and_nothing_is_compiled_twice(make, one_step, kinds):
    """With the compiler's front end alone, which needs no C++ compiler and changes no number."""
    eager, ours = make(), make()
    names = list(ours.state_dict())
    assert compiled.compile_blocks(ours, backend="aot_eager") == sum(isinstance(m, Block) for m in eager.modules()) > kinds
    assert list(ours.state_dict()) == names
    assert_equal(one_step(ours), one_step(eager), 1e-6)
    assert graphs_and_breaks() == (kinds, 0)
    for _ in range(3):
        one_step(ours)
    again = make()  # what a roll-back makes
    compiled.compile_blocks(again, backend="aot_eager")
    one_step(again)
    ours.eval()(*[CLIPS] if one_step is classifier_step else [CLIPS, random_mask(8, 0.5, 2, generator=torch.Generator())])
    assert graphs_and_breaks() == (kinds, 0), "later steps and evaluation compile nothing"


def test_gradients_of_graphs_are_copies_and_every_forward_pass_begins_a_step(monkeypatch):
    """A graph's own memory is written again by the next step."""
    begun, asked = [], []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    quick = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: asked.append(how.pop("mode", None)) or quick(f, **how | {"backend": "aot_eager"}))
    eager, ours = mae(), mae()
    compiled.compile_blocks(ours, graphs=True)
    assert_equal(mae_step(ours), mae_step(eager), 1e-6, 5e-6)
    assert asked == ["reduce-overhead"] and len(begun) == 1 and graphs_and_breaks() == (2, 0)
    weight, seen = ours.blocks[0].mlp.fc1.weight, []
    weight.register_hook(seen.append)  # after the copy
    mae_step(ours)
    assert len(begun) == 2 and len(seen) == 1
    assert len(weight._backward_hooks) == 2 and next(iter(weight._backward_hooks.values())) is torch.clone


def kept_numbers(block, x):
    """Numbers per token and channel that autograd keeps for the backward pass, parameters aside."""
    own, kept = {p.untyped_storage().data_ptr() for p in block.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x)
    return sum(size for size, _ in kept.values()) / x.nbytes


def test_a_compiled_block_keeps_less_for_the_backward_pass_than_an_eager_one():
    block, x = Block(64, 4), torch.randn(2, 50, 64, requires_grad=True)
    eager = kept_numbers(block, x)
    compiled.compile_blocks(block, backend="aot_eager_decomp_partition")
    assert eager == pytest.approx(12, abs=0.2) and kept_numbers(block, x) == pytest.approx(10, abs=0.2)


@pytest.mark.slow
def test_under_autocast_the_numbers_are_those_of_16_bits():
    eager, ours = mae(), mae()
    compiled.compile_blocks(ours, backend="aot_eager")
    assert_equal(mae_step(ours, autocast=True), mae_step(eager, autocast=True), 2e-2)
    assert graphs_and_breaks() == (2, 0)


@pytest.mark.slow  # of CPU time a minute in float32 and half of it under autocast: the C++ compiler builds 10 kernels of each kind
@pytest.mark.parametrize(("make", "one_step", "kinds", "autocast"), [
    (mae, mae_step, 2, False), (mae, mae_step, 2, True), (lambda: classifier(drop_path=0.0), classifier_step, 1, True)])
def test_inductor_computes_the_same_and_compiles_once(tmp_path, monkeypatch, make, one_step, kinds, autocast):
    need("compiler")
    monkeypatch.setenv(compiled.CACHE, str(tmp_path / "cache"))
    assert compiled.use_own_cache(3) == tmp_path / "cache" / "rank3"
    eager, ours = make(), make()
    compiled.compile_blocks(ours)
    assert_equal(one_step(ours, autocast=autocast), one_step(eager, autocast=autocast), 2e-2 if autocast else 1e-6,
                 2e-2 if autocast else 5e-6)
    first = one_step(ours, autocast=autocast)
    assert_equal(one_step(ours, autocast=autocast), first, 0)
    assert graphs_and_breaks() == (kinds, 0) and any((tmp_path / "cache" / "rank3").iterdir())


def test_a_cache_that_others_can_write_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv(compiled.CACHE, str(folder))
    with pytest.raises(ValueError, match="you alone can write"):
        compiled.use_own_cache(0)
    private = tmp_path / "private"
    monkeypatch.setenv(compiled.CACHE, str(private))
    assert compiled.use_own_cache(1).stat().st_mode & 0o777 == private.stat().st_mode & 0o777 == 0o700


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    monkeypatch.setenv("CXX", "my-compiler")
    assert "no C++ compiler here (looked for my-compiler, c++" in compiled.why_not(torch.device("cpu"))
    monkeypatch.setattr(compiled.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: None)
    assert compiled.why_not(torch.device("cpu")) is None and "triton" in compiled.why_not(torch.device("cuda"))
