"""Sequences with masks in the layout of DAVIS 2017.

    JPEGImages/480p/NAME/00000.jpg        frames
    Annotations/480p/NAME/00000.png       PNG with a palette: the number of a pixel is its object, 0 is none, 255 not asked
    ImageSets/2017/val.txt                a name per line

Source: Pont-Tuset et al. 2017, The 2017 DAVIS Challenge on Video Object Segmentation (arXiv 1704.00675).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vidmae.evaluate.dense.dense_sequence import DenseSequence

FRAMES, MASKS, LIST = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017/val.txt"
NAME = re.compile(r"[\w-]+")


def davis_names(folder: Path) -> list[str]:
    """Names of the sequences of the validation set.

    Raises:
        ValueError: The folder has not this layout.
    """
    try:
        names = (folder / LIST).read_text(encoding="utf-8").split()
    except OSError as error:
        raise ValueError(f"{folder} has not the layout of DAVIS 2017: {LIST} cannot be read ({error.strerror}); allowed: a "
                         f"folder with {FRAMES}, {MASKS} and {LIST} (--sets davis=FOLDER)") from error
    if not names:
        raise ValueError(f"{folder / LIST} names no sequence (--sets davis=FOLDER)")
    for place, name in enumerate(names, 1):
        if not NAME.fullmatch(name):
            raise ValueError(f"line {place} of {folder / LIST} is no name of letters, digits, - and _")
    return names


def davis_files(folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    """The frames of a sequence and their masks, in order.

    Raises:
        ValueError: There are none, or they do not belong to each other.
    """
    frames, masks = sorted((folder / FRAMES / name).glob("*.jpg")), sorted((folder / MASKS / name).glob("*.png"))
    if len(frames) < 3 or [path.stem for path in frames] != [path.stem for path in masks]:
        raise ValueError(f"a sequence has {len(frames)} frames in {FRAMES} and {len(masks)} masks in {MASKS}, allowed: 3 or "
                         "more, and a mask of the same number for each frame")
    return frames, masks


def read_davis(folder: Path, name: str) -> DenseSequence:
    """Decode one sequence.

    Args:
        folder: In this layout.
        name: One of `davis_names`.
    Raises:
        ValueError: Files are missing or damaged, or masks are no palette pictures.
    """
    from PIL import Image

    frames, masks = davis_files(folder, name)
    pictures, numbers = [], []
    try:
        for path in frames:
            with Image.open(path, formats=["JPEG"]) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        for path in masks:
            with Image.open(path, formats=["PNG"]) as image:
                if image.mode not in ("P", "L", "1"):
                    raise ValueError(f"a mask has colours ({image.mode}), allowed: PNG with a palette, or grey, in which "
                                     "the number of a pixel is its object")
                numbers.append(np.asarray(image).astype(np.uint8))
    except OSError as error:
        raise ValueError(f"a file of a sequence cannot be decoded: {type(error).__name__}") from None
    if len({picture.shape for picture in pictures}) > 1 or len({number.shape for number in numbers}) > 1:
        raise ValueError("the frames of a sequence, or its masks, are not all of one size")
    return DenseSequence(np.stack(pictures), np.stack(numbers))
