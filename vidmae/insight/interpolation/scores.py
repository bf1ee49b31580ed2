"""How good a completion is: one number per clip and score, on the hidden pixels alone. Pure numpy and scikit-image.

    score          a perfect completion   what it looks at
    psnr_db        100 (the cap)          pixels; more is better
    ssim           1                      structure of each frame; more is better
    mse            0                      pixels
    norm_mse       0                      structure of each patch, whatever its brightness and contrast; 2 is chance
    mc_mse         0                      what is left when the completion may be bent to fit: right things, wrong place
    flow_error_px  0                      motion from frame to frame
    profile_mse    0                      change of each pixel over time: flicker, jumps at the seams, stillness

Letters: T frames, H W px of a clip; u frames and p px of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from skimage.metrics import structural_similarity

from vidmae.insight.vision import dense_flow, grey, warp

PSNR_CAP_DB = 100.0
PATCH_EPS = 1e-6  # added to a patch's variance, as in norm_pix_loss


@dataclass(frozen=True)
class Scores:
    """Of one completion; see the table at the top of the file."""

    psnr_db: float
    ssim: float
    mse: float
    norm_mse: float
    mc_mse: float
    flow_error_px: float
    profile_mse: float


SCORES = tuple(f.name for f in fields(Scores))
MORE_IS_BETTER = frozenset({"psnr_db", "ssim"})


class Judge:
    """Scores completions of one clip; what depends on the truth alone is computed once.

    Args:
        truth: uint8 [T, H, W, 3].
        hidden: bool [T, H, W], whole patches.
        patch: u, p.
    Raises:
        ValueError: Nothing is hidden, or shapes do not fit.
    """

    def __init__(self, truth: np.ndarray, hidden: np.ndarray, patch: tuple[int, int]) -> None:
        if truth.dtype != np.uint8 or truth.shape != (*hidden.shape, 3):
            raise ValueError(f"the truth is {truth.dtype} {truth.shape}; expected uint8 {(*hidden.shape, 3)}")
        if not hidden.any():
            raise ValueError("no pixel is hidden: there is nothing to score")
        self.truth, self.hidden, self.patch = truth.astype(np.float64) / 255, hidden, patch
        self._frames = np.flatnonzero(hidden.any(axis=(1, 2))).tolist()
        self._steps = [t for t in range(len(truth) - 1) if hidden[t].any() or hidden[t + 1].any()]
        self._normed = _normed_patches(self.truth, hidden, patch)
        self._flows = self._flow(self.truth)

    @property
    def motion_px(self) -> float:
        """How much moves in the truth: mean length of the optical flow over the steps that touch a hidden frame, px."""
        return float(np.mean([np.linalg.norm(flow, axis=-1).mean() for flow in self._flows])) if self._flows else 0.0

    def score(self, filled: np.ndarray) -> Scores:
        """Score a completion.

        PSNR is 10 log10(1 / mse), capped at 100 dB so that a still clip does not make a mean infinite. SSIM is Wang's with
        a Gaussian window (sigma 1.5 px), its map averaged over hidden pixels and colours. For `mc_mse` every hidden frame
        of the completion is bent onto the truth along their optical flow, and what is left is squared; never more than the
        plain error of the frame. `flow_error_px` is the distance between the flow of the completion and of the truth, from
        each frame to the next. `profile_mse` compares differences of successive frames, the seams to the visible ones
        included.

        Args:
            filled: float [T, H, W, 3] in 0..1.
        Raises:
            ValueError: Another shape, or a number is not finite.
        Source: Wang et al. 2004 (SSIM, doi 10.1109/TIP.2003.819861); Chu et al. 2020 (arXiv 1811.09393) sec. 4, whose tOF
            `flow_error_px` is; Caballero et al. 2017 (arXiv 1611.05250) fig. 7 for temporal profiles.
        """
        if filled.shape != self.truth.shape or not np.isfinite(filled).all():
            raise ValueError(f"a completion has shape {filled.shape} (expected {self.truth.shape}) or numbers that are not "
                             "finite")
        filled = filled.astype(np.float64)
        mse = float(((filled - self.truth)[self.hidden] ** 2).mean())
        normed = _normed_patches(filled, self.hidden, self.patch)
        return Scores(
            psnr_db=PSNR_CAP_DB if mse < 10 ** (-PSNR_CAP_DB / 10) else -10 * np.log10(mse).item(),
            ssim=self._ssim(filled), mse=mse, norm_mse=float(((normed - self._normed) ** 2).mean()),
            mc_mse=self._compensated(filled), flow_error_px=self._flow_error(filled), profile_mse=self._profile(filled))

    def _ssim(self, filled: np.ndarray) -> float:
        total = 0.0
        for t in self._frames:
            _, values = structural_similarity(self.truth[t], filled[t], channel_axis=-1, data_range=1, gaussian_weights=True,
                                              sigma=1.5, use_sample_covariance=False, full=True)
            total += values[self.hidden[t]].mean(axis=-1).sum()
        return float(total / self.hidden.sum())

    def _compensated(self, filled: np.ndarray) -> float:
        total = 0.0
        for t in self._frames:
            bent = warp(filled[t], dense_flow(grey(self.truth[t]), grey(filled[t])))
            errors = [((picture - self.truth[t])[self.hidden[t]] ** 2).sum() for picture in (filled[t], bent)]
            total += min(errors)
        return float(total / (self.hidden.sum() * 3))

    def _flow(self, clip: np.ndarray) -> list[np.ndarray]:
        return [dense_flow(grey(clip[t]), grey(clip[t + 1])) for t in self._steps]

    def _flow_error(self, filled: np.ndarray) -> float:
        apart = [np.linalg.norm(mine - true, axis=-1)[self.hidden[t] | self.hidden[t + 1]]
                 for t, mine, true in zip(self._steps, self._flow(filled), self._flows, strict=True)]
        return float(np.concatenate(apart).mean()) if apart else 0.0

    def _profile(self, filled: np.ndarray) -> float:
        touched = self.hidden[:-1] | self.hidden[1:]
        if not touched.any():
            return 0.0
        return float(((np.diff(filled, axis=0) - np.diff(self.truth, axis=0))[touched] ** 2).mean())


def _normed_patches(clip: np.ndarray, hidden: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """The hidden patches [N, P], each with mean 0 and deviation 1 (less where it is all but flat)."""
    u, p = patch
    time, height, width, _ = clip.shape
    cells = clip.reshape(time // u, u, height // p, p, width // p, p, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    chosen = cells[hidden[::u, ::p, ::p]].reshape(-1, u * p * p * 3)
    centred = chosen - chosen.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + PATCH_EPS))
