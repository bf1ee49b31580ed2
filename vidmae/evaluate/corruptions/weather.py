"""Weather: snow, frost, fog, bright light. Layers are drawn for a short side of 224 px and brought to size."""

from __future__ import annotations

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import enlarged, fitted, luma, opencv, published_size, smeared, whole

SOURCE = "Hendrycks and Dietterich 2019"
FROST_MEAN = (146.0, 167.0, 179.0)  # of red, green and blue, five photographs of frost
FROST_SIGMA = 33.0  # their standard deviation within a picture


def snow(frames: np.ndarray, constants: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Flakes that fall from two sides, and light that takes the colours away.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Mean and standard deviation of the noise that flakes are made from, their size in px of 224, the threshold
            above which noise is a flake, radius and standard deviation of their motion, share of the picture that stays.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    mean, sigma, size, threshold, radius, motion, stays = constants
    height, width = frames.shape[1:3]
    flakes = rng.standard_normal(published_size(height, width), dtype=np.float32) * np.float32(sigma) + np.float32(mean)
    flakes = enlarged(flakes, size)
    flakes[flakes < threshold] = 0
    fallen = smeared(whole(flakes * 255)[None], int(radius), motion, rng.uniform(-135, -45))[0]
    layer = fitted(np.round(fallen), height, width)
    both = (layer + layer[::-1, ::-1])[..., None]
    out = np.empty_like(frames)
    for frame, shown in zip(frames, out, strict=True):
        pixels = frame.astype(np.float32)
        pale = np.maximum(pixels, (luma(pixels) * 1.5 + 127.5)[..., None])
        shown[...] = whole(np.float32(stays) * pixels + np.float32(1 - stays) * pale + both)
    return out


def frost(frames: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Lay ice over the picture. The published set uses photographs; this ice is generated, see `ice`.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Shares of the picture and of the ice in the sum.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    picture, frozen = constants
    height, width = frames.shape[1:3]
    layer = fitted(ice(*published_size(height, width), rng), height, width)
    return whole(frames * np.float32(picture) + layer * np.float32(frozen))


def ice(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A pane with ice: veins of all widths, the ridges of smooth noise. Mean and spread are those of photographs of frost.

    Args:
        height, width: Px.
        rng: Source of randomness.
    Returns:
        float32 [height, width, 3] in 0..255.
    """
    cv2 = opencv()
    veins = np.zeros((height, width), dtype=np.float32)
    for cells in (2, 4, 8, 16, 32, 64, 128):
        tall, wide = (max(2, round(cells * side / min(height, width))) + 1 for side in (height, width))
        coarse = rng.standard_normal((tall, wide), dtype=np.float32)
        noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        ridges = 1 / (1 + np.abs(noise) * 4)
        veins += ridges * (1 + veins) / np.float32(cells**0.25)
    veins -= veins.mean()
    veins *= np.float32(FROST_SIGMA) / veins.std()
    return np.clip(veins[..., None] + np.array(FROST_MEAN, dtype=np.float32), 0, 255)


def fog(frames: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Mix with a cloud, and keep the brightest value of the clip where it was.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: How thick it is, and by how much finer parts of the cloud are weaker.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    thickness, decay = constants
    height, width = frames.shape[1:3]
    rows, columns = published_size(height, width)
    cloud = plasma(1 << (max(rows, columns) - 1).bit_length(), decay, rng)[:rows, :columns]
    layer = fitted(cloud.astype(np.float32), height, width)[..., None] * np.float32(thickness * 255)
    brightest = int(frames.max())
    return whole((frames + layer) * np.float32(brightest / (brightest + thickness * 255)))


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A cloud by midpoint displacement (diamonds and squares), which goes on beyond its border as it begins.

    Args:
        side: Px, a power of two.
        decay: Each finer step draws from a range that is this many times smaller, before it is squared.
        rng: Source of randomness.
    Returns:
        float64 [side, side] in 0..1; both ends occur.
    """
    cloud = np.zeros((side, side))
    step, reach = side, 100.0
    while step >= 2:
        half = step // 2

        def between(corners: np.ndarray, reach: float = reach) -> np.ndarray:
            return corners / 4 + reach * rng.uniform(-reach, reach, size=corners.shape)

        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        cloud[half::step, half::step] = between(pairs + np.roll(pairs, -1, axis=1))
        middles = cloud[half::step, half::step]
        cloud[::step, half::step] = between(middles + np.roll(middles, 1, axis=0) + corners + np.roll(corners, -1, axis=1))
        cloud[half::step, ::step] = between(middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=0))
        step, reach = half, reach / decay
    cloud -= cloud.min()
    return np.asarray(cloud / cloud.max())


def brightness(frames: np.ndarray, more: float, _rng: np.random.Generator) -> np.ndarray:
    """Raise the value of hue, saturation and value: all three colours grow by the factor by which the largest grows.

    Args:
        frames: uint8 [T, H, W, 3].
        more: What is added to the value, of 1.
    Returns:
        uint8 [T, H, W, 3].
    """
    values = np.arange(256)
    raised = np.minimum(values + 255 * more, 255)
    factors = (raised / np.maximum(values, 1)).astype(np.float32)
    largest = np.maximum(np.maximum(frames[..., 0], frames[..., 1]), frames[..., 2])
    out = frames * factors[largest][..., None]
    out[largest == 0] = raised[0]  # black has no colour
    return whole(out)


KINDS = {
    "snow": Kind("weather", snow, ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                                   (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                                   (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
                 "noise, deviation, size px, threshold, motion px, deviation px, share of the picture", "snow falls",
                 SOURCE),
    "frost": Kind("weather", frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
                  "shares of picture and ice", "ice on the lens; generated, not the photographs of the published set",
                  SOURCE, generated=True),
    "fog": Kind("weather", fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), "thickness, decay", "fog", SOURCE),
    "brightness": Kind("weather", brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "added to the value, of 1", "bright light", SOURCE,
                       drawn=False),
}
