"""Pillow: a picture is a video of one frame, which lasts as long as one of the paper's clips.

    JPEG, PNG, WebP, BMP   by what is in the file: names may lie (one file of ImageNet is a PNG named .JPEG)
    orientation            as a viewer shows it: the EXIF tag is followed, mirrored ones included
    grey, palette, CMYK    become red, green, blue; CMYK without a colour profile, as other libraries do it
    16 bits a colour       the higher 8 of them (Pillow's own conversion makes nearly all of a 16-bit grey picture white)
    transparency           left out: the colours below it, as torchvision's loader gives them
    animated               the first frame

What of this a file is stands in the column `codec` of its row (`jpeg cmyk`, `png grey 16-bit`), so that it can be counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.footage.decoders.reader import DecodeError, Frames, Translate, VideoReader, regular_file

PILLOW = "pillow"
STILL_FPS = 30 / 128
"""Frames per second of a picture: its one frame lasts 4.27 s, which is a clip of 16 frames at frame stride 8 of 30 fps."""
OPENED = ("JPEG", "PNG", "WEBP", "BMP")
FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "BMP": "bmp"}  # MPO: a JPEG with more behind it
ORIENTATION = 0x0112  # the EXIF tag
TURNED = {3: 180, 4: 180, 5: 90, 6: 270, 7: 270, 8: 90}  # its values: degrees counter-clockwise, some after mirroring
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # modes of a grey picture with 16 bits
KINDS = {"CMYK": ("cmyk",), "L": ("grey",), "1": ("grey",), "LA": ("grey", "transparent"), "P": ("palette",),
         "PA": ("palette", "transparent"), "RGBA": ("transparent",), "RGBX": ("transparent",)}


@dataclass(frozen=True)
class PictureInfo:
    """What a file is.

    Attributes:
        codec: `jpeg`, `png`, `webp` or `bmp`, and behind it what is unusual: cmyk, grey, 16-bit, palette, transparent,
            animated.
        rotation: How far the picture is turned when it is shown, in degrees counter-clockwise.
        height, width: Of the picture as shown, px.
    """

    codec: str
    rotation: int
    height: int
    width: int


def look_at_picture(path: str | Path) -> PictureInfo:
    """Decode a picture in full, and say what it is.

    Raises:
        DecodeError: It is no picture of the formats above, or is damaged; the message does not hold its name.
    """
    with closing(PillowReader(regular_file(path))) as reader:
        _, height, width, _ = reader.read([0]).shape
        return PictureInfo(reader.codec, reader.rotation, height, width)


class PillowReader(VideoReader):
    """One picture. Frame 0 is all there is."""

    num_frames, fps = 1, STILL_FPS

    @staticmethod
    def load_library() -> None:
        """Import it."""
        import PIL.Image  # noqa: F401

    def __init__(self, path: Path) -> None:
        from PIL import Image, UnidentifiedImageError

        self._path = path
        with self._failure_as_decode_error():
            try:
                self._image: Any = Image.open(path, formats=OPENED)
            except UnidentifiedImageError:
                raise DecodeError("it is neither JPEG nor PNG, WebP or BMP, or its beginning is damaged") from None

    @contextmanager
    def _failure_as_decode_error(self) -> Iterator[None]:
        from PIL import Image

        # Pillow raises all of these on damaged files (its own PNG plugin SyntaxError); warnings are of no use here
        kinds = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
                 Image.DecompressionBombError)
        with warnings.catch_warnings(), Translate(self._path, kinds, "Pillow"):
            warnings.simplefilter("ignore")
            yield

    @property
    def codec(self) -> str:
        """See `PictureInfo`."""
        image = self._image
        words = [FORMATS[image.format], *(("grey", "16-bit") if image.mode in DEEP else KINDS.get(image.mode, ()))]
        words += ["transparent"] if "transparency" in image.info and "transparent" not in words else []
        words += ["animated"] if image.format != "MPO" and getattr(image, "is_animated", False) else []
        return " ".join(words)

    @property
    def rotation(self) -> int:
        """See `PictureInfo`."""
        return TURNED.get(self._orientation(), 0)

    def _orientation(self) -> int:
        with self._failure_as_decode_error():
            value = self._image.getexif().get(ORIENTATION, 1)
        return value if isinstance(value, int) else 1

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        assert indices.tolist() == [0]
        with self._failure_as_decode_error():
            self._image.load()
            pixels = _colours(self._image)
        return np.ascontiguousarray(_upright(pixels, self._orientation()))[None]

    def close(self) -> None:
        """Let go of the file."""
        self._image.close()


def _colours(image: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a picture that is loaded, not turned yet."""
    if image.mode in DEEP:
        return np.repeat((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise DecodeError("its pixels are fractions, not whole numbers of 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turned and mirrored as a viewer does by the EXIF tag."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, TURNED.get(orientation, 0) // 90)
