"""Images and their bytes in a codec: PNG, JPEG, WebP, AVIF. The only user of Pillow in this folder."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from hellods.errors import FormatError, OptionError, UnsupportedError
from hellods.format import wire
from hellods.format.avif import check_avif


@dataclass(frozen=True)
class Codec:
    """How Pillow reads and writes one format."""

    feature: str  # what Pillow calls the library behind it
    reader: type[ImageFile]  # reads this format and no other, and warns of no size: sizes are compared here
    lossless: dict[str, Any] | None
    lossy: dict[str, Any] | None


CODECS: dict[str, Codec] = {
    "png": Codec("zlib", PngImageFile, {"optimize": True}, None),
    "jpeg": Codec("jpg", JpegImageFile, None, {"optimize": True}),
    "webp": Codec("webp", WebPImageFile, {"lossless": True}, {"method": 6}),
    "avif": Codec("avif", AvifImageFile, None, {"max_threads": 1}),  # at quality 100 still not lossless
}


def encode(pixels: NDArray[np.uint8], codec: str, quality: int | None) -> bytes:
    """Return the stream of one image; the same pixels give the same bytes under one release of Pillow.

    Args:
        pixels: uint8 (H, W, 3).
        codec: a name in CODECS.
        quality: 0 to 100, or None for lossless; png is always lossless.

    Raises:
        OptionError: the codec has no lossless form.
        UnsupportedError: this Pillow was built without the codec.
    """
    known = _codec(codec)
    options = known.lossless if quality is None or known.lossy is None else {**known.lossy, "quality": quality}
    if options is None:
        raise OptionError(f"{codec} is never lossless: choose a quality from 0 to 100, or webp or png")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, codec, **options)
    return buffer.getvalue()


def decode(stream: bytes, codec: str, height: int, width: int, where: str) -> NDArray[np.uint8]:
    """Return the pixels of one image, uint8 (H, W, 3).

    Mode, size and number of frames are compared before a pixel is allocated.

    Raises:
        FormatError: the stream is not one whole RGB image of that codec and size.
        UnsupportedError: this Pillow was built without the codec.
    """
    known = _codec(codec)
    try:
        if codec == "png":
            _check_png(stream)
        # The marker of a scan, which image data cannot hold.
        if codec == "jpeg" and (scans := stream.count(b"\xff\xda")) > wire.MAX_SCANS:
            raise ValueError(f"it has {scans} scans, and at most {wire.MAX_SCANS} are read")
        if codec == "avif":
            check_avif(stream, height, width)
        with known.reader(io.BytesIO(stream)) as image:
            found = (image.mode, image.height, image.width, getattr(image, "n_frames", 1))
            if found != ("RGB", height, width, 1):
                raise ValueError(f"{found[0]} {found[1]}x{found[2]} with {found[3]} frames, expected RGB")
            image.load()
            return np.asarray(image)
    # On hostile bytes Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error and more.
    except Exception as cause:
        raise FormatError(f"{where}: not a {codec} image of {height}x{width}: {cause} [C3]") from cause


def _codec(name: str) -> Codec:
    codec = CODECS[name]
    if not features.check(codec.feature):
        raise UnsupportedError(f"this Pillow was built without {name}: install one from PyPI [C3]")
    return codec


def _check_png(stream: bytes) -> None:
    # Pillow forgives a missing end, and turns the faults of an animation into warnings.
    kinds = list(_chunks(stream))
    if b"acTL" in kinds:
        raise ValueError("it is animated")
    if b"IEND" not in kinds:
        raise ValueError("it is truncated")
    if stream[24] != 8:  # in IHDR, which is first
        raise ValueError(f"it has {stream[24]} bits a channel, expected 8")


def _chunks(png: bytes) -> Iterator[bytes]:
    position = 8
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        position += 12 + length
        if position <= len(png):
            yield kind
