"""Scores of completions and what they are compared with, on real footage and against formulas that are written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from tests.support.footage import real_clip
from vidmae.insight.interpolation.baselines import BASELINES, applicable, fade, flow, hold, mean, model_filler
from vidmae.insight.interpolation.scores import MORE_IS_BETTER, SCORES, Judge
from vidmae.insight.vision import between, dense_flow, grey, warp
from vidmae.model.mae import build_mae
from vidmae.model.masking import center_mask, make_mask, removed_pixels, temporal_mask
from vidmae.settings.sizes import encoder_shape

SHAPE = encoder_shape("vit_nano_patch16", img_size=64, num_frames=8)
CENTER = removed_pixels(center_mask(64, 0.25, 1), SHAPE)[0].numpy()  # frames 3 and 4, from 0
HOLED = np.zeros((8, 64, 64), dtype=bool)
HOLED[2:6, 16:48, 0:32] = True  # whole patches of 2 x 16 x 16


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """A real picture that moves by (2, 1) px a frame; its size leaves room for moving it further."""
    picture = real_clip("carphone", img_size=128)[0]
    return np.stack([picture[30 - t:94 - t, 30 - 2 * t:94 - 2 * t] for t in range(8)])


def later(clip: np.ndarray, pixels: int) -> np.ndarray:
    """Each frame moved to the right."""
    return np.roll(clip, pixels, axis=2) / 255.0


def test_a_perfect_completion_scores_perfectly():
    clip = real_clip("bikes")
    scores = Judge(clip, CENTER, (2, 16)).score(clip / 255.0)
    assert vars(scores) == {"psnr_db": 100, "ssim": pytest.approx(1, abs=1e-12), "mse": 0, "norm_mse": 0, "mc_mse": 0,
                            "flow_error_px": 0, "profile_mse": 0}


@pytest.mark.parametrize("hidden", [CENTER, HOLED], ids=["whole frames", "parts"])
def test_scores_against_formulas(hidden):
    clip, rng = real_clip("bigbuck"), np.random.default_rng(0)
    truth = clip / 255.0
    filled = np.where(hidden[..., None], np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1), truth)
    scores = Judge(clip, hidden, (2, 16)).score(filled)
    assert scores.mse == pytest.approx(((filled - truth) ** 2).sum() / (3 * hidden.sum()), rel=1e-12)
    assert scores.psnr_db == pytest.approx(peak_signal_noise_ratio(truth[hidden], filled[hidden], data_range=1), rel=1e-12)
    assert scores.ssim == pytest.approx(ssim_by_formula(truth, filled, hidden), rel=1e-9)
    assert scores.norm_mse == pytest.approx(norm_mse_by_patch(truth, filled, hidden), rel=1e-9)
    jumps = [((filled[t + 1] - filled[t]) - (truth[t + 1] - truth[t]))[hidden[t] | hidden[t + 1]] for t in range(7)]
    assert scores.profile_mse == pytest.approx((np.concatenate(jumps) ** 2).mean(), rel=1e-12)


def ssim_by_formula(truth, filled, hidden) -> float:
    """Wang et al. 2004 eq. 13, Gaussian window of 11 px."""
    values = np.zeros(truth.shape)
    for t in range(len(truth)):
        for c in range(3):
            x, y = truth[t, ..., c], filled[t, ..., c]
            blur = [gaussian_filter(z, 1.5, truncate=3.5, mode="reflect") for z in (x, y, x * x, y * y, x * y)]
            ux, uy, xx, yy, xy = blur
            values[t, ..., c] = ((2 * ux * uy + 1e-4) * (2 * (xy - ux * uy) + 9e-4)
                                 / ((ux**2 + uy**2 + 1e-4) * (xx - ux**2 + yy - uy**2 + 9e-4)))
    return float(values[hidden].mean())


def norm_mse_by_patch(truth, filled, hidden) -> float:
    errors = []
    for t in range(0, 8, 2):
        for y in range(0, 64, 16):
            for x in range(0, 64, 16):
                if hidden[t, y, x]:
                    pair = [z[t:t + 2, y:y + 16, x:x + 16] for z in (truth, filled)]
                    a, b = ((z - z.mean()) / np.sqrt(z.var() + 1e-6) for z in pair)
                    errors.append(((a - b) ** 2).mean())
    return float(np.mean(errors))


def test_the_further_shifted_the_worse(moving):
    judge = Judge(moving, CENTER, (2, 16))
    ranked = [judge.score(later(moving, pixels)) for pixels in (0, 1, 3, 6)]
    for name in ("psnr_db", "ssim", "mse", "norm_mse"):
        values = [getattr(s, name) * (-1 if name in MORE_IS_BETTER else 1) for s in ranked]
        assert values == sorted(values) and len(set(values)) == 4, name


def test_motion_compensation_forgives_a_shift_and_no_wrong_picture(moving):
    judge = Judge(moving, CENTER, (2, 16))
    shifted = judge.score(later(moving, 2))
    assert shifted.mc_mse < 0.25 * shifted.mse
    other = judge.score(real_clip("bigbuck") / 255.0)
    assert 0.5 * other.mse < other.mc_mse <= other.mse


def test_motion_and_its_error_are_in_pixels(moving):
    judge = Judge(moving, CENTER, (2, 16))
    assert judge.motion_px == pytest.approx(5**0.5, rel=0.1)
    still = np.repeat(moving[3:4], 8, axis=0) / 255.0
    assert judge.score(still).flow_error_px == pytest.approx(5**0.5, rel=0.1)
    assert Judge(np.repeat(moving[:1], 8, axis=0), CENTER, (2, 16)).motion_px == pytest.approx(0, abs=0.01)


def test_flow_finds_a_shift_and_warping_undoes_it(moving):
    first, second = moving[0] / 255.0, moving[3] / 255.0
    found = dense_flow(grey(first), grey(second))
    assert np.abs(np.median(found, axis=(0, 1)) - (6, 3)).max() < 0.1
    assert np.abs(warp(second, found) - first)[10:-10, 10:-10].mean() < 0.01 < np.abs(second - first).mean()
    assert np.abs(between(first, second, 1 / 3) - moving[1] / 255.0)[10:-10, 10:-10].mean() < 0.02


def neighbours(hidden, t, y, x) -> tuple[list[int], list[int]]:
    seen = [s for s in range(len(hidden)) if not hidden[s, y, x]]
    return [s for s in seen if s < t], [s for s in seen if s > t]


@pytest.mark.parametrize("kind", ["center", "temporal", "random"])
def test_baselines_of_single_pixels(kind):
    import torch

    clip = real_clip("carphone")
    mask = make_mask(kind, SHAPE, 0.5, 1, generator=torch.Generator().manual_seed(1))
    hidden = removed_pixels(mask, SHAPE)[0].numpy()
    held, faded, averaged = (fill(clip, hidden) for fill in (hold, fade, mean))
    rng = np.random.default_rng(0)
    shown = clip / 255.0
    for t, y, x in rng.permutation(np.argwhere(hidden))[:300].tolist():
        before, after = neighbours(hidden, t, y, x)
        if not before and not after:
            expected = [shown[~hidden].mean(axis=0)] * 3
        else:
            a, b = (before or after[:1])[-1], (after or before[-1:])[0]
            part = (t - a) / (b - a) if before and after else 0
            expected = [shown[a, y, x], (1 - part) * shown[a, y, x] + part * shown[b, y, x],
                        np.mean([shown[s, y, x] for s in before + after], axis=0)]
        for got, want in zip((held, faded, averaged), expected, strict=True):
            assert np.allclose(got[t, y, x], want, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_looks_at_what_is_hidden(name):
    clip = real_clip("bikes")
    inverted = np.where(CENTER[..., None], 255 - clip, clip)
    filled = BASELINES[name](clip, CENTER)
    assert filled.dtype == np.float32 and np.array_equal(filled, BASELINES[name](inverted, CENTER))
    assert np.allclose(filled[~CENTER], clip[~CENTER] / 255.0)
    assert filled.min() >= 0 and filled.max() <= 1


def test_flow_is_the_best_baseline_where_things_move_evenly(moving):
    judge = Judge(moving, CENTER, (2, 16))
    mse = {name: judge.score(fill(moving, CENTER)).mse for name, fill in BASELINES.items()}
    assert min(mse, key=mse.__getitem__) == "flow" and mse["flow"] < 0.5 * mse["fade"]


def test_flow_lets_the_last_motion_go_on(moving):
    end = removed_pixels(temporal_mask(64, 0.25, 1), SHAPE)[0].numpy()
    judge = Judge(moving, end, (2, 16))
    assert judge.score(flow(moving, end)).mse < 0.5 * judge.score(hold(moving, end)).mse
    backwards, start = moving[::-1], end[::-1]
    assert np.allclose(flow(backwards, start)[::-1], flow(moving, end))


def test_flow_wants_whole_frames():
    assert list(applicable(CENTER)) == ["hold", "fade", "flow", "mean"]
    tube = np.repeat(HOLED[2:3], 8, axis=0)
    assert list(applicable(tube)) == ["hold", "fade", "mean"]
    with pytest.raises(ValueError, match="hides a part of every frame"):
        flow(real_clip("bikes"), tube)


def test_a_model_is_a_filler_like_the_others():
    import torch

    model = build_mae("mae_vit_nano_patch16", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=48, decoder_depth=1,
                      decoder_num_heads=3).eval()
    clip = real_clip("bikes")
    filled = model_filler(model, torch.device("cpu"))(clip, CENTER)
    expected = model.reconstruct(torch.from_numpy(clip.copy())[None], center_mask(64, 0.25, 1))[0].numpy()
    assert np.allclose(filled, expected, atol=1e-5)
    assert np.allclose(filled[~CENTER], clip[~CENTER] / 255.0, atol=1e-6)


def test_input_that_cannot_be_scored_is_refused():
    clip = real_clip("bikes")
    with pytest.raises(ValueError, match="no pixel is hidden"):
        Judge(clip, np.zeros_like(CENTER), (2, 16))
    with pytest.raises(ValueError, match=r"expected uint8 \(8, 64, 64, 3\)"):
        Judge(clip / 255.0, CENTER, (2, 16))
    with pytest.raises(ValueError, match="not finite"):
        Judge(clip, CENTER, (2, 16)).score(np.full(clip.shape, np.nan))


def test_every_score_has_a_direction():
    assert set(SCORES) > MORE_IS_BETTER
