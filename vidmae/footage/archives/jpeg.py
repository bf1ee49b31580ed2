"""JPEG in and out: the only import of simplejpeg, which is libjpeg-turbo.

Measured on frames of 342 x 256 px, CPU ms a frame, best of 15 interleaved rounds on 2 busy cores: decoding by simplejpeg
into memory that is there 0.35, by OpenCV 0.45, by Pillow 0.75; encoding 0.37, 0.76 and 0.46. All three give the same pixels:
slow integer DCT, smooth upsampling. simplejpeg's faster settings (0.32) give others, up to 7 grey levels off, and are not
used; nor is decoding at a reduced scale, which would change what the model sees. Colours at half resolution (4:2:0), as the
footage has them: 43.5 dB at quality 90; full resolution costs 18 % more bytes for 1.1 dB.

Where time goes, 16 frames on another, busy Intel Xeon: entropy decoding 3.3 of 5.7 ms at quality 90 and 2.7 of 4.7 at 80,
the luma's transform 0.9, the rest is colour. Entropy decoding cannot leave out what a crop does not show. Nor is there much
to leave out: crops of half to all of a 4:3 picture are nearly always as high as it is, and a quarter less wide, so a decoder
of regions (which simplejpeg does not offer) would save an eighth.
"""

from __future__ import annotations

import io

import numpy as np

from vidmae.footage.decoders.reader import DecodeError

CODER = "simplejpeg, 4:2:0"


def load_coder() -> None:
    """Import it."""
    import simplejpeg  # noqa: F401


def encode(picture: np.ndarray, quality: int) -> bytes:
    """The JPEG of uint8 [H, W, 3] at a quality of 1 to 100."""
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420", fastdct=False))


def size_of(jpeg: memoryview) -> tuple[int, int]:
    """Height and width in px.

    Raises:
        DecodeError: It is no JPEG.
    """
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError:
        raise DecodeError("a frame of the archive is no JPEG") from None
    return int(height), int(width)


def decode_into(jpeg: memoryview, out: np.ndarray) -> None:
    """Fill uint8 [H, W, 3].

    Raises:
        DecodeError: It is damaged or of another size.
    """
    import simplejpeg

    try:
        made = simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=False, buffer=out)
    except ValueError:
        if size_of(jpeg) == out.shape[:2]:
            raise DecodeError("a frame of the archive is damaged") from None
        made = None
    if made is None or made.shape != out.shape:
        raise DecodeError("the picture size changes within the recording")


def decode_with_pillow(jpeg: memoryview, out: np.ndarray) -> None:
    """Fill uint8 [H, W, 3] by another library, to compare with.

    Raises:
        DecodeError: It is damaged or of another size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            out[:] = np.asarray(image.convert("RGB"))
    except (OSError, ValueError):
        raise DecodeError("Pillow cannot decode a frame of the archive") from None
