"""Sections: bytes with a digest, compressed where that saves, never larger than they say."""

import hashlib
from collections.abc import Callable
from typing import Final

from hellods.errors import DigestError, FormatError
from hellods.format import tensors, wire
from hellods.format.header import Section, most_raw

LEVEL: Final = 9  # of zstd; higher ones save nothing on half-precision weights and take minutes


def encode(name: str, raw: bytes) -> tuple[Section, bytes]:
    """Return the entry of a section and its bytes in the file."""
    stored = raw if name in wire.IDENTITY else _compress(raw)
    section = Section(
        name=name,
        length=len(stored),
        raw_length=len(raw),
        encoding="identity" if stored is raw else "zstd",
        sha256=hashlib.sha256(stored).hexdigest(),
        critical=name in wire.KNOWN and name not in wire.ANCILLARY,
    )
    return section, stored


def decode(section: Section, stored: bytes, where: str) -> bytes:
    """Return what `encode` was given, checked for what a section of that name holds.

    Raises:
        DigestError: the bytes are not those that the header promises.
        FormatError: they are, and break a rule.
    """
    if hashlib.sha256(stored).hexdigest() != section.sha256:
        raise DigestError(f"{where}: the bytes differ from their SHA-256: damaged, fetch the file again [H16]")
    raw = stored if section.encoding == "identity" else _decompress(section, stored, where)
    check = CHECKS.get(section.name)
    if check is not None:
        check(raw, where)
    return raw


def padding(length: int) -> bytes:
    """Return the zeros that follow a section of `length` bytes."""
    return bytes(-length % wire.ALIGNMENT)


def _compress(raw: bytes) -> bytes:
    import zstandard  # here, since many readers never need it

    stored = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(raw)
    return stored if len(stored) < len(raw) <= most_raw(len(stored)) else raw


def _decompress(section: Section, stored: bytes, where: str) -> bytes:
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(stored)
        if frame.content_size != section.raw_length or frame.window_size > wire.MAX_WINDOW:
            raise FormatError(
                f"{where}: a frame of {frame.content_size} bytes with a window of {frame.window_size}, expected "
                f"{section.raw_length} bytes and a window of at most {wire.MAX_WINDOW} [C2]"
            )
        # Fills a buffer of content_size bytes, no more: `max_output_size` would bound nothing, and a frame that lies
        # about its size makes the streaming interfaces grow.
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise FormatError(f"{where}: not one whole zstd frame: {cause} [C2]") from cause


def _check_text(raw: bytes, where: str) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as cause:
        raise FormatError(f"{where}: not UTF-8: {cause} [C5]") from cause


CHECKS: Final[dict[str, Callable[[bytes, str], None]]] = {
    "projector": tensors.check,
    "probe": tensors.check,
    "backbone": tensors.check,
    "card": _check_text,
}
