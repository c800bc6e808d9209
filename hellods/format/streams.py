"""Image streams end to end, and the index that finds and checks each one alone."""

import struct
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate

from hellods.errors import DigestError, FormatError
from hellods.format import wire


def image_sections(streams: Sequence[bytes]) -> dict[str, bytes]:
    """Return the sections `images` and `images.index` for the encoded images, in their order."""
    index = b"".join(struct.pack(wire.INDEX_ENTRY, len(stream), zlib.crc32(stream)) for stream in streams)
    return {"images": b"".join(streams), "images.index": index}


class Index:
    """Where each stream lies in the section `images`.

    Args:
        data: the section `images.index`.
        length: the length of the section `images`.
        source: names the file in messages.

    Raises:
        FormatError: the streams do not fill the section.
    """

    def __init__(self, data: bytes, length: int, source: str) -> None:
        lengths = (length for length, _ in struct.iter_unpack(wire.INDEX_ENTRY, data))
        self._bounds = array("Q", accumulate(lengths, initial=0))
        self._data = data
        self._source = source
        if self._bounds[-1] != length:
            raise FormatError(f"{source}: images of {self._bounds[-1]} bytes, their section has {length} [H20]")

    def extent(self, image: int) -> slice:
        """Return where the stream of an image starts and stops."""
        return slice(self._bounds[image], self._bounds[image + 1])

    def check(self, image: int, stream: bytes) -> bytes:
        """Return `stream`, which is that of the image.

        Raises:
            DigestError: it is not.
        """
        _, crc = struct.unpack_from(wire.INDEX_ENTRY, self._data, image * struct.calcsize(wire.INDEX_ENTRY))
        if zlib.crc32(stream) != crc:
            raise DigestError(
                f"{self._source}: image {image} differs from its CRC-32: damaged, fetch the file again [H21]"
            )
        return stream
