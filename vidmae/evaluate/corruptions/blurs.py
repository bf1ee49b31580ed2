"""Blur: out of focus, through frosted glass, by motion, by zooming. Lengths grow with the short side of a picture."""

from __future__ import annotations

from functools import cache

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import enlarged_rows, filtered, gaussian, opencv, scale_of, smeared, whole

SOURCE = "Hendrycks and Dietterich 2019"
NOTHING = 1e-9  # weights below it are left out: the narrowest smoothing has some of 1e-44, which processors multiply slowly
FINE = 9  # samples per px and axis of a disc whose radius is no whole number


def defocus_blur(frames: np.ndarray, constants: tuple[float, float], _rng: np.random.Generator) -> np.ndarray:
    """Blur with a disc.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Radius in px of 224, and the standard deviation in px with which the disc itself is smoothed.
    Returns:
        uint8 [T, H, W, 3].
    """
    radius, smoothing = constants
    return whole(filtered(frames, disc(radius * scale_of(frames), smoothing)))


@cache
def disc(radius_px: float, smoothing_px: float) -> np.ndarray:
    """The kernel of a lens out of focus, float32 [h, h].

    A whole radius takes the pixels whose centres are inside, as published. Other radii weigh a pixel by the
    part of it that is inside.
    """
    field = max(8, int(np.ceil(radius_px)))
    whole_radius = float(radius_px).is_integer()
    fine = 1 if whole_radius else FINE
    places = (np.arange((2 * field + 1) * fine) - ((2 * field + 1) * fine - 1) / 2) / fine
    inside = places[:, None] ** 2 + places**2 <= radius_px**2
    kernel = inside.reshape(2 * field + 1, fine, 2 * field + 1, fine).mean(axis=(1, 3)).astype(np.float32)
    kernel /= kernel.sum()
    side = 3 if radius_px <= 8 else 5
    kernel = np.asarray(opencv().GaussianBlur(kernel, (side, side), smoothing_px))
    kernel[kernel < NOTHING] = 0
    if not whole_radius:
        kernel /= kernel.sum()
    empty = int(np.flatnonzero(kernel.any(axis=0))[0])
    return np.ascontiguousarray(kernel[empty:kernel.shape[0] - empty, empty:kernel.shape[1] - empty])


def glass_blur(frames: np.ndarray, constants: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Blur, let pixels take the place of others near by, and blur again.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Standard deviation of the blur in px of 224, how far pixels go in px of 224, and how often all go.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    sigma, reach, rounds = constants
    scale = scale_of(frames)
    count, height, width = frames.shape[:3]
    soft = whole(gaussian(frames, sigma * scale))
    origin = scattered(height, width, max(1, round(reach * scale)), rounds, rng)
    return whole(gaussian(soft.reshape(count, height * width, 3)[:, origin].reshape(frames.shape), sigma * scale))


def scattered(height: int, width: int, reach: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixel each pixel shows after the scattering of `glass_blur`.

    From the last pixel to the first, each takes what a drawn neighbour shows at that moment. The published description
    exchanges the two. The published set was made with code that copies one into the other (both sides of its exchange are
    views of the same array), and this copies, too, since results are compared with that set. What shows which follows from
    the draws alone and is found for numbers of pixels, once for all colours and frames. A pixel whose neighbour was reached
    before it takes what that one took: these chains are followed for all pixels at once, each step twice as far.

    Args:
        height, width: Px.
        reach: A neighbour is -reach to reach - 1 px away, on both axes.
        rounds: How often.
        rng: Source of randomness.
    Returns:
        int64 [height * width], row by row.
    """
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    here = (rows[:, None] * width + columns).ravel()
    everyone = np.arange(height * width)
    reached = np.zeros(height * width, dtype=bool)
    reached[here] = True
    shown = everyone
    for _ in range(rounds):
        steps = rng.integers(-reach, reach, size=(2, len(here)))
        neighbour, taker = everyone.copy(), everyone.copy()
        neighbour[here] = here + steps[0] * width + steps[1]
        before = here[reached[neighbour[here]] & (neighbour[here] > here)]
        taker[before] = neighbour[before]
        while True:
            further = taker[taker]
            if np.array_equal(further, taker):
                break
            taker = further
        shown = shown[neighbour[taker]]
    return shown


def motion_blur(frames: np.ndarray, constants: tuple[int, float], rng: np.random.Generator) -> np.ndarray:
    """Blur along a line whose direction is drawn from -45 to 45 degrees.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Radius and standard deviation in px of 224, see `smeared`.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    radius, sigma = constants
    scale = scale_of(frames)
    return whole(smeared(frames, max(1, round(radius * scale)), sigma * scale, rng.uniform(-45, 45)))


def zoom_blur(frames: np.ndarray, constants: tuple[float, float], _rng: np.random.Generator) -> np.ndarray:
    """The mean of a frame and of its enlargements.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Where the factors, which begin at 1, end, and their distance.
    Returns:
        uint8 [T, H, W, 3].
    """
    end, step = constants
    factors = np.arange(1, end, step)
    out = np.empty_like(frames)
    for frame, shown in zip(frames, out, strict=True):
        pixels = frame.astype(np.float32)
        turned = np.zeros((frame.shape[1], frame.shape[0], 3), dtype=np.float32)
        for factor in factors.tolist():
            turned += enlarged_rows(np.ascontiguousarray(enlarged_rows(pixels, factor).swapaxes(0, 1)), factor)
        shown[...] = whole((pixels + turned.swapaxes(0, 1)) / (len(factors) + 1))
    return out


KINDS = {
    "defocus_blur": Kind("blur", defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
                         "radius of the disc, its smoothing, px", "out of focus", SOURCE, drawn=False),
    "glass_blur": Kind("blur", glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
                       "blur px, reach px, rounds", "seen through frosted glass", SOURCE),
    "motion_blur": Kind("blur", motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), "radius px, deviation px",
                        "moved while the shutter was open", SOURCE),
    "zoom_blur": Kind("blur", zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
                      "largest factor, step", "zoomed while the shutter was open", SOURCE, drawn=False),
}
