"""The only import of OpenCV: optical flow, warping, template matching, pasting at fractions of a pixel.

Coordinates are (x, y) in px, x to the right and y down; a pixel's centre has whole numbers. Letters: H W px.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FOURTH, ROUNDS = 4, 8  # of `camera_flow`
CAUCHY = 2.385 / 0.6745  # of the median distance: where a pixel counts half; 95 % as good as least squares on normal noise
LEAST_PX = 0.01


def grey(frame: np.ndarray) -> np.ndarray:
    """Luma of a frame, uint8 [H, W], from float [H, W, 3] in 0..1."""
    import cv2

    cv2.setNumThreads(1)  # the same numbers on every machine, and ranks that do not fight for cores
    return np.asarray(cv2.cvtColor((np.clip(frame, 0, 1) * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY))


def dense_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where every pixel of `first` is in `second`.

    Args:
        first, second: uint8 [H, W], see `grey`.
    Returns:
        float32 [H, W, 2], displacement (x, y) in px: `first[y, x]` looks like `second[y + dy, x + dx]`.
    Source: Kroeger et al. 2016, dense inverse search (arXiv 1603.03590); OpenCV's medium preset.
    """
    import cv2

    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(method.calc(first, second, None), dtype=np.float32)


def camera_flow(flow: np.ndarray) -> np.ndarray:
    """What of a flow a moving camera would do to a flat scene: the affine motion that most of the picture follows.

    Shift, turn and zoom are fitted to every FOURTH pixel by least squares, ROUNDS times; each time pixels count less the
    farther they were off, so that what moves by itself hardly counts as long as it is the smaller part. Parallax remains.

    Args:
        flow: float [H, W, 2], displacement (x, y) in px.
    Returns:
        float64 [H, W, 2].
    Source: Holland and Welsch 1977, Robust regression using iteratively reweighted least-squares (Cauchy weights).
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width] / float(min(height, width))
    places = np.stack([np.ones_like(x), x - x.mean(), y - y.mean()], axis=-1)
    some = (slice(None, None, FOURTH), slice(None, None, FOURTH))
    known, seen = places[some].reshape(-1, 3), flow[some].reshape(-1, 2).astype(np.float64)
    found = np.array([np.median(seen, axis=0), [0, 0], [0, 0]])
    for _ in range(ROUNDS):
        off = np.linalg.norm(seen - known @ found, axis=1)
        weight = 1 / (1 + (off / (CAUCHY * max(float(np.median(off)), LEAST_PX))) ** 2)
        root = np.sqrt(weight)[:, None]
        found = np.linalg.lstsq(known * root, seen * root, rcond=None)[0]
    return np.asarray(places @ found)


def warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Fetch each pixel from where the flow points to: bilinear, the border repeated; float32, the size of `frame`."""
    import cv2

    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(frame.astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE))


def between(first: np.ndarray, second: np.ndarray, when: float) -> np.ndarray:
    """A frame between two others along their optical flow.

    Args:
        first, second: float [H, W, 3] in 0..1.
        when: 0 is the first, 1 the second.
    Returns:
        float32 [H, W, 3].
    Source: Jiang et al. 2018, Super SloMo (arXiv 1712.00080) eq. 1 (without visibility) and 4, with DIS for the flow.
    """
    there, back = dense_flow(grey(first), grey(second)), dense_flow(grey(second), grey(first))
    to_first = -(1 - when) * when * there + when**2 * back
    to_second = (1 - when) ** 2 * there - when * (1 - when) * back
    return (1 - when) * warp(first, to_first) + when * warp(second, to_second)


def beyond(before: np.ndarray, last: np.ndarray, frames: float) -> np.ndarray:
    """A frame some time after `last`, or before where `frames` is counted backwards: the motion goes on as it was.

    Args:
        before, last: float [H, W, 3] in 0..1, neighbours in time.
        frames: How far beyond `last`, in distances of the two.
    """
    return warp(last, frames * dense_flow(grey(last), grey(before)))


def correlate(picture: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Sum of the products of a template with every place of a picture.

    Args:
        picture: float [H, W] or [H, W, 3].
        template: float [h, w] or [h, w, 3].
    Returns:
        float32 [H - h + 1, W - w + 1], over all colours.
    """
    import cv2

    return np.asarray(cv2.matchTemplate(picture.astype(np.float32), template.astype(np.float32), cv2.TM_CCORR))


def peak_at(values: np.ndarray, y: int, x: int) -> tuple[float, float]:
    """The place (x, y) of a peak to a fraction of a pixel: a parabola through it and its neighbours, per axis."""
    def offset(before: float, here: float, after: float) -> float:
        bend = before - 2 * here + after
        return 0.0 if bend >= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))

    height, width = values.shape
    dx = offset(values[y, x - 1], values[y, x], values[y, x + 1]) if 0 < x < width - 1 else 0.0
    dy = offset(values[y - 1, x], values[y, x], values[y + 1, x]) if 0 < y < height - 1 else 0.0
    return x + dx, y + dy


def shifted(picture: np.ndarray, size: tuple[int, int], x: float, y: float) -> np.ndarray:
    """A picture laid on an empty one of `size` (H, W), its top left pixel at (x, y): bilinear, 0 elsewhere."""
    import cv2

    move = np.array([[1, 0, x], [0, 1, y]], dtype=np.float64)
    return np.asarray(cv2.warpAffine(picture.astype(np.float32), move, size[::-1], flags=cv2.INTER_LINEAR,
                                     borderMode=cv2.BORDER_CONSTANT, borderValue=0))


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers as colours from black over red and yellow to white, which are told apart in grey and without red or green.

    Args:
        values: [H, W] in 0..1.
    Returns:
        float32 [H, W, 3] in 0..1.
    """
    import cv2

    coloured = cv2.applyColorMap((np.clip(values, 0, 1) * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(coloured[..., ::-1], dtype=np.float32) / 255


def written(words: Sequence[str], height: int) -> list[np.ndarray]:
    """Words in black on white, to stand beside pictures.

    Args:
        words: In ASCII.
        height: Of the pictures in px; letters are larger beside larger ones.
    Returns:
        float32 [height, width, 3] in 0..1 each, all as wide as the longest word needs.
    """
    import cv2

    font, scale, margin = cv2.FONT_HERSHEY_SIMPLEX, float(np.clip(height / 250, 0.4, 1.2)), 4
    sizes = [cv2.getTextSize(word, font, scale, 1)[0] for word in words]
    width = max(across for across, _ in sizes) + 2 * margin
    papers = [np.full((height, width, 3), 255, dtype=np.uint8) for _ in words]
    for paper, word, (_, tall) in zip(papers, words, sizes, strict=True):
        cv2.putText(paper, word, (margin, (height + tall) // 2), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return [paper.astype(np.float32) / 255 for paper in papers]


def shrunk(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of another size, each pixel the mean of those that it covers; uint8, [height, width] or with colours."""
    import cv2

    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def laplacian(luma: np.ndarray) -> np.ndarray:
    """Sum of the second differences along both axes, float32 [H, W], from uint8 [H, W]."""
    import cv2

    return np.asarray(cv2.Laplacian(luma, cv2.CV_32F))
