"""Image files -> uint8 RGB; what cannot be trusted is refused by name."""

from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import pil_to_tensor

from hellods.errors import SourceError

SUFFIXES: Final = frozenset(IMG_EXTENSIONS) | {".avif", ".gif"}
# Content decides which of these a file is. Pillow's others are no photographs, and EPS would start Ghostscript.
FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS: Final = 1 << 26  # 8192²; decoding more would take gigabytes
# Mode -> what people call it. Every other mode but RGB has no agreed way to 8-bit RGB.
CONVERTED: Final = {
    "1": "black-and-white",
    "L": "grayscale",
    "LA": "grayscale with transparency (dropped)",
    "I;16": "16-bit grayscale",
    "I;16B": "16-bit grayscale",
    "I": "16-bit grayscale",  # in a PGM, whose values Pillow brings to 0..65535
    "P": "palette",
    "PA": "palette",
    "RGBA": "RGB with transparency (dropped)",
    "RGBX": "RGBX",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
}


def decode(data: bytes, where: str) -> tuple[Tensor, str | None]:
    """Return uint8 (3, H, W), upright as EXIF says, and what it was converted from, if it was not RGB.

    Raises:
        SourceError: no image, damaged, animated, too large, or of a kind that has no agreed way to RGB.
    """
    if not data:
        raise _refused(where, "empty file (0 bytes)")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            _require_usable(picture, where)
            return pil_to_tensor(_rgb(ImageOps.exif_transpose(picture))), CONVERTED.get(picture.mode)
    except SourceError:
        raise
    except UnidentifiedImageError as cause:
        raise _refused(where, "not an image that can be read") from cause
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise _refused(where, f"too large ({cause})") from cause
    except Exception as cause:  # whatever a decoder makes of damaged bytes
        raise _refused(where, f"damaged image ({cause})") from cause


def _require_usable(picture: Image.Image, where: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _refused(where, f"too large ({width}×{height} pixels, the limit is {MAX_PIXELS})")
    # MPO is a JPEG photograph, followed by previews or a second eye's view.
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        raise _refused(where, f"animated, or of several pages ({picture.n_frames})")  # type: ignore[attr-defined]
    unknown = picture.mode not in CONVERTED and picture.mode != "RGB"
    if unknown or (picture.mode == "I" and picture.format != "PPM"):
        raise _refused(where, f"pixels of mode {picture.mode}, which have no fixed range; convert it to 8-bit RGB")


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # Pillow clips 16 bits to 8; this scales them.
        pixels = (np.asarray(picture).astype(np.uint32) + 128) // 257
        picture = Image.fromarray(pixels.astype(np.uint8))
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # Pillow warns on the direct way when entries are transparent
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _refused(where: str, found: str) -> SourceError:
    return SourceError(f"{where}: {found}; remove or replace this file")
