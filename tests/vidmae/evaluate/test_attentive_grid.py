"""The attentive probe with several blocks, rates and views: against a plain loop, torch's own attention, and known answers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vidmae.evaluate.attentive import absent_classes, fit_attentive, new_head, train_heads
from vidmae.evaluate.attentive_grid import SomeClips, fit_best, held_out, rates_of
from vidmae.evaluate.attentive_heads import AttentiveBlocks, AttentiveHead
from vidmae.settings.finetune_config import ProbeConfig
from vidmae.settings.layers import ConfigError

CPU = torch.device("cpu")
TODAY = ProbeConfig(epochs=6, batch=32, blocks=2, heads=4)
CLASSES, DIM, TOKENS = 4, 16, 8


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def hidden(clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that show every class equally often; the one that is marked tells the truth."""
    rng = np.random.default_rng(seed)
    shown = rng.permuted(np.tile(np.arange(TOKENS) % CLASSES, (clips, 1)), axis=1)
    marked = rng.integers(TOKENS, size=clips)
    x = 0.1 * rng.standard_normal((clips, TOKENS, DIM))
    x[..., :CLASSES] += np.eye(CLASSES)[shown]
    x[np.arange(clips), marked, -1] += 4
    return x.astype(np.float32), shown[np.arange(clips), marked]


def weights_of(head: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in head.parameters()]


def textbook(x: np.ndarray, y: np.ndarray, probe: ProbeConfig, lr: float, decay: float, seed: int) -> list[torch.Tensor]:
    """A head that is trained alone, as the probe always was: one rate, one loop, AdamW without decay of vectors."""
    torch.manual_seed(seed)
    head = AttentiveBlocks(DIM, CLASSES, blocks=probe.blocks, heads=probe.heads) if probe.blocks else AttentiveHead(DIM, CLASSES)
    matrices = [p for n, p in head.named_parameters() if p.ndim > 1 and not n.endswith("bias")]
    vectors = [p for n, p in head.named_parameters() if p.ndim <= 1 or n.endswith("bias")]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}], lr=lr, fused=True)
    batches = math.ceil(len(x) / min(probe.batch, len(x)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=probe.epochs * batches)
    order = np.random.default_rng(seed)
    for _ in range(probe.epochs):
        for part in np.array_split(order.permutation(len(x)), batches):
            loss = F.cross_entropy(head(torch.from_numpy(x[part])), torch.from_numpy(y[part]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return weights_of(head)


@pytest.mark.parametrize("blocks", [0, 2])
def test_rates_that_are_trained_at_once_learn_what_each_learns_alone(blocks: int) -> None:
    x, y = hidden(70, 1)
    probe = replace(TODAY, blocks=blocks, epochs=3, lrs=(1e-2, 3e-3), weight_decays=(0.0, 0.4))
    rates = rates_of(probe)
    assert rates == [(1e-2, 0.0), (1e-2, 0.4), (3e-3, 0.0), (3e-3, 0.4)]
    heads = [new_head(DIM, CLASSES, probe, 5, CPU) for _ in rates]
    steps, losses = train_heads(heads, rates, absent_classes(y, CLASSES, CPU), x, y, probe, 5, CPU)
    assert steps == 9 and all(map(math.isfinite, losses))
    for head, (lr, decay) in zip(heads, rates, strict=True):
        for found, alone in zip(weights_of(head), textbook(x, y, probe, lr, decay, 5), strict=True):
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
    first = [weights_of(head)[0] for head in heads]
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in itertools.pairwise(first)), "rates make a difference"


def test_without_settings_the_probe_is_what_it_was() -> None:
    """To the bit: the numbers of runs of before stay."""
    x, y = hidden(70, 1)
    probe = ProbeConfig(epochs=3, batch=32)
    fitted = fit_best(x, y, num_classes=CLASSES, probe=probe, holdout=0.2, seed=5, device=CPU, say=lambda _: None)
    assert fitted.chosen == {} and isinstance(fitted.head, AttentiveHead) and not isinstance(fitted.head, AttentiveBlocks)
    assert all(map(torch.equal, weights_of(fitted.head), textbook(x, y, probe, 1e-3, 0.05, 5)))


def test_blocks_are_those_of_torch() -> None:
    """Self-attention and MLP as torch's encoder layer has them, then one query that looks at all tokens, with an MLP."""
    torch.manual_seed(0)
    head, tokens = AttentiveBlocks(DIM, 5, blocks=3, heads=4), torch.randn(2, 7, DIM)
    theirs = [nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
                                         layer_norm_eps=1e-6) for _ in range(2)]
    look = nn.MultiheadAttention(DIM, 4, batch_first=True)
    with torch.no_grad():
        for block, layer in zip(head.blocks, theirs, strict=True):
            for p in block.parameters():
                p.add_(0.05 * torch.randn_like(p))
            layer.self_attn.in_proj_weight.copy_(torch.cat([block.attn.q.weight, block.attn.k.weight, block.attn.v.weight]))
            layer.self_attn.in_proj_bias.copy_(torch.cat([block.attn.q.bias, block.attn.k.bias, block.attn.v.bias]))
            layer.self_attn.out_proj.load_state_dict(block.attn.proj.state_dict())
            for name, mine in (("linear1", block.mlp.fc1), ("linear2", block.mlp.fc2), ("norm1", block.norm1), ("norm2", block.norm2)):
                getattr(layer, name).load_state_dict(mine.state_dict())
        head.query.mul_(100)  # else it looks at all tokens alike
        look.in_proj_weight.copy_(torch.cat([torch.eye(DIM), head.key.weight, head.value.weight]))
        look.in_proj_bias.copy_(torch.cat([torch.zeros(2 * DIM), head.value.bias.fill_(0.2)]))
        look.out_proj.load_state_dict(head.proj.state_dict())
        x = tokens
        for layer in theirs:
            x = layer(x)
        x = head.norm_tokens(x)
        found = look(head.query.flatten().expand(2, 1, -1), x, x)[0][:, 0]
        expected = head.head(found + head.mlp.fc2(F.gelu(head.mlp.fc1(head.norm(found)))))
        torch.testing.assert_close(head(tokens), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"probe.heads is 5, which does not divide the width 16 .* nearest: 4 or 8"):
        AttentiveBlocks(DIM, 5, blocks=4, heads=5)


def test_an_oracle_is_found_and_a_mean_of_pixels_is_at_chance() -> None:
    """Before any model is judged: where the tokens hold the class the probe gets it, and where they do not it does not."""
    (x, y), (val_x, val_y), said = hidden(160, 1), hidden(100, 2), list[str]()
    probe = replace(TODAY, epochs=9, lrs=(1e-5, 5e-3), weight_decays=(0.01,))
    settings = {"num_classes": CLASSES, "probe": probe, "holdout": 0.2, "seed": 0, "device": CPU, "say": said.append}
    fitted = fit_best(x, y, **settings)
    assert (fitted(val_x).argmax(1) == val_y).mean() > 0.95
    assert fitted.chosen["lr"] == 5e-3 and fitted.chosen["tried"] == 2 and fitted.chosen["held_out"] == sum(
        round(0.2 * n) for n in np.bincount(y)), "1e-5 learns nothing in so few steps"
    assert "of 2 pairs of rates, lr 0.005" in said[0] and "trained anew on all 160" in said[0]
    blank = [np.repeat(v[..., 5:6].mean((1, 2), keepdims=True), TOKENS, 1) * np.ones(DIM, np.float32) for v in (x, val_x)]
    nothing = fit_best(blank[0], y, **settings | {"probe": replace(probe, epochs=3)})
    assert (nothing(blank[1]).argmax(1) == val_y).mean() < 0.4 and nothing.chosen["held_out_top1_pct"] < 45


def test_the_rate_is_chosen_on_labelled_clips_and_the_test_clips_are_not_seen() -> None:
    x, y = hidden(60, 1)
    held = held_out(y, 0.2, 3)
    assert held is not None and all(1 <= (held & (y == c)).sum() <= (y == c).sum() - 1 for c in range(CLASSES))
    assert not np.array_equal(held, held_out(y, 0.2, 4)) and held_out(np.array([0, 0, 1]), 0.2, 0) is None
    some = SomeClips(x, np.flatnonzero(held))
    assert len(some) == held.sum() and np.array_equal(some[np.array([1, 0])], x[np.flatnonzero(held)[[1, 0]]]) and some.shape == x.shape
    said: list[str] = []
    alone = np.concatenate([[np.flatnonzero(y == c)[0]] for c in range(CLASSES)])
    probe = replace(TODAY, epochs=2, lrs=(2e-3, 1e-3), weight_decays=(0.1,))
    fitted = fit_best(x[alone], y[alone], num_classes=CLASSES, probe=probe, holdout=0.2, seed=0, device=CPU, say=said.append)
    assert "a single labelled clip, so no rates can be tried: those of probe.lr and probe.weight_decay" in said[0]
    assert fitted.chosen == {"lr": 1e-3, "weight_decay": 0.05, "tried": 0, "held_out": 0}, "and not the first, highest rate"
    expected = textbook(x[alone], y[alone], probe, 1e-3, 0.05, 0)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights_of(fitted.head), expected, strict=True))


def test_a_rate_that_diverges_is_left_out_and_all_of_them_are_an_error() -> None:
    x, y = hidden(40, 1)
    probe = replace(TODAY, epochs=2, blocks=0, lrs=(1e30, 3e-3))
    settings = {"num_classes": CLASSES, "holdout": 0.2, "seed": 0, "device": CPU, "say": lambda _: None}
    assert fit_best(x, y, probe=probe, **settings).chosen["lr"] == 3e-3
    with pytest.raises(ValueError, match=r"loss of the attentive probe is (nan|inf), (nan|inf) in epoch .*probe\.lrs \(now 1e\+30, 2e\+30\)"):
        fit_best(x, y, probe=replace(probe, lrs=(1e30, 2e30)), **settings)


def test_of_several_views_training_sees_one_at_a_time_and_a_test_averages_all() -> None:
    (x, y), (val_x, _) = hidden(80, 1), hidden(30, 2)
    views = np.stack([x, np.roll(x, 1, axis=1), np.zeros_like(x)], axis=1)
    val_views = np.stack([val_x, np.roll(val_x, 3, axis=1), np.zeros_like(val_x)], axis=1)
    probe = ProbeConfig(epochs=2, batch=16, views="3x1")
    fitted = fit_attentive(views, y, num_classes=CLASSES, probe=probe, seed=0, device=CPU, say=lambda _: None, views=3)
    each = [fitted(np.ascontiguousarray(val_views[:, v])) for v in range(3)]
    np.testing.assert_allclose(fitted(val_views, 3), np.mean(each, axis=0), atol=1e-12)
    assert np.abs(each[0] - each[2]).max() > 1e-3
    blank = np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=1)
    other = fit_attentive(blank, y, num_classes=CLASSES, probe=probe, seed=0, device=CPU, say=lambda _: None, views=3)
    assert not torch.allclose(weights_of(other.head)[0], weights_of(fitted.head)[0], atol=1e-4), "all views are drawn"


@pytest.mark.parametrize(("settings", "said"), [
    ({"blocks": -1}, "probe.blocks"), ({"lrs": (0.0,)}, "probe.lrs"), ({"weight_decays": (-1.0,)}, "probe.weight_decays"),
    ({"views": "random"}, "probe.views"), ({"views": "frames4"}, "probe.views"), ({"restarts": 0}, "probe.restarts"), ({"heads": 0}, "probe.heads")])
def test_settings_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ProbeConfig(**settings)
