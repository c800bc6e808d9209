"""as_stored(): images as a reader of an archive will have them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hellods.format.codecs import decode, encode
from hellods.progress import Progress, silent, track


def as_stored(
    images: Sequence[Tensor] | Tensor, codec: str, quality: int | None, progress: Progress = silent
) -> tuple[list[bytes], Tensor]:
    """Return the images' streams, and what these decode to, uint8 (N, 3, H, W), on the CPU.

    Args:
        images: uint8 (3, H, W) each, of one size.
        codec: a name in CODECS.
        quality: 0 to 100, or None for lossless.
        progress: told of every image.
    """
    streams, decoded = [], []
    for image in track(images, len(images), "Encode", progress):
        pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
        stream = encode(pixels, codec, quality)
        again = decode(stream, codec, pixels.shape[0], pixels.shape[1], "new image")
        streams.append(stream)
        decoded.append(torch.tensor(again).permute(2, 0, 1))
    return streams, torch.stack(decoded)
