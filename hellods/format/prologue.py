"""The first 64 bytes: which file this is, how long, and the digest that names its content."""

import struct
from dataclasses import dataclass

from hellods.errors import FormatError, UnsupportedError
from hellods.format import wire


@dataclass(frozen=True, kw_only=True)
class Prologue:
    """What stands before the header."""

    major: int
    minor: int
    header_length: int
    file_length: int
    digest: bytes  # SHA-256 of the header


def parse(data: bytes, size: int, source: str) -> Prologue:
    """Return the prologue.

    Args:
        data: the first 64 bytes of the file, or all of a shorter one.
        size: the length of the file.
        source: names the file in messages.

    Raises:
        FormatError: a rule is broken.
        UnsupportedError: another major version.
    """
    if not data.startswith(wire.SIGNATURE):
        raise FormatError(f"{source}: not a .hello file [H1]")
    if len(data) < wire.ALIGNMENT:
        raise FormatError(f"{source}: {len(data)} bytes, truncated: fetch the file again [H4]")
    _, major, minor, header_length, file_length, digest, reserved = struct.unpack(wire.PROLOGUE, data)
    if major != wire.MAJOR:
        remedy = "install a newer hellods" if major > wire.MAJOR else "build the archive anew"
        raise UnsupportedError(f"{source}: format {major}.{minor}, this version reads {wire.MAJOR}.x: {remedy} [H2]")
    if header_length % wire.ALIGNMENT or not 0 < header_length <= wire.MAX_HEADER:
        raise FormatError(
            f"{source}: header of {header_length} bytes, a multiple of 64 up to {wire.MAX_HEADER} is allowed [H3]"
        )
    if file_length != size:
        raise FormatError(
            f"{source}: {size} bytes, {file_length} were written: truncated or extended, fetch the file again [H4]"
        )
    if wire.ALIGNMENT + header_length > size:
        raise FormatError(f"{source}: a header of {header_length} bytes in a file of {size} [H4]")
    if any(reserved):
        raise FormatError(f"{source}: the last eight bytes of the prologue are not zero [H6]")
    return Prologue(major=major, minor=minor, header_length=header_length, file_length=file_length, digest=digest)


def emit(prologue: Prologue) -> bytes:
    """Return the 64 bytes of a prologue."""
    return struct.pack(
        wire.PROLOGUE,
        wire.SIGNATURE,
        prologue.major,
        prologue.minor,
        prologue.header_length,
        prologue.file_length,
        prologue.digest,
        bytes(8),
    )
