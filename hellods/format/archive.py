"""An archive in a file: open it, read its sections and images, verify it, write it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hellods.errors import DigestError, FormatError
from hellods.format import header as headers
from hellods.format import prologue as prologues
from hellods.format import sections as contents
from hellods.format import wire
from hellods.format.files import File, check_target, replacing
from hellods.format.header import Header, Section
from hellods.format.streams import Index
from hellods.progress import Progress, silent, track

if TYPE_CHECKING:  # numpy costs a tenth of a second, and a header needs none
    import numpy as np
    from numpy.typing import NDArray

# What is decoded ahead, in images and in bytes: those behind a slow one wait.
BATCH = 256
AHEAD = 1 << 27


class Archive:
    """An open archive, to use in a `with` block and by one thread.

    Attributes:
        header: what the file says of itself.
        content_id: SHA-256 of the header, 64 hexadecimal digits: one id for the whole content.
        name: the file in messages.
    """

    header: Header
    content_id: str

    def __init__(self, file: File, known: Archive | None = None) -> None:
        self._file = file
        self.name = file.name
        prologue = prologues.parse(file.read(0, min(file.size, wire.ALIGNMENT)), file.size, self.name)
        if known is not None and known.content_id == prologue.digest.hex():
            vars(self).update(vars(known) | vars(self))  # its index, too, if that was read
            return
        data = file.read(wire.ALIGNMENT, prologue.header_length)
        if hashlib.sha256(data).digest() != prologue.digest:
            raise DigestError(f"{self.name}: the header differs from its SHA-256: damaged, fetch the file again [H5]")
        self.content_id = prologue.digest.hex()
        self.header = headers.parse(data, self.name)
        if self.header.version != (prologue.major, prologue.minor):
            raise FormatError(f"{self.name}: header.format is not {prologue.major}.{prologue.minor} as before it [H8]")
        offset = wire.ALIGNMENT + prologue.header_length
        self._places: dict[str, tuple[Section, int]] = {}  # name: entry and offset
        for section in self.header.sections:
            self._places[section.name] = section, offset
            offset += section.length + len(contents.padding(section.length))
        if offset != file.size:
            raise FormatError(f"{self.name}: {file.size} bytes, header and sections have {offset} [H14]")

    @classmethod
    def open(cls, source: str | os.PathLike[str] | BinaryIO, known: Archive | None = None) -> Archive:
        """Return the archive at a path, or in a binary file object that can seek and that the caller closes.

        Only prologue and header are read; where the archive is `known`, open or closed, the first 64 bytes alone.

        Raises:
            HelloError: there is no such file, or it cannot be read.
            FormatError: it breaks a rule.
            UnsupportedError: it was made for another version.
        """
        file = File.open(source)
        try:
            return cls(file, known)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Close the file, if `open` opened it."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __contains__(self, section: str) -> bool:
        """Whether the file has a section of that name."""
        return section in self._places

    def read(self, section: str) -> bytes:
        """Return the content of a section: decompressed, and checked against its digest and the rules of its name.

        Raises:
            FormatError: the file has no such section, or it breaks a rule.
        """
        if section not in self:
            raise FormatError(f"{self.name}: has no section {section!a} [H12]")
        entry, offset = self._places[section]
        where = f"{self.name}: section {section!r}"
        if any(self._file.read(offset + entry.length, len(contents.padding(entry.length)))):
            raise FormatError(f"{where}: padding is not zero [H15]")
        return contents.decode(entry, self._file.read(offset, entry.length), where)

    def image(self, index: int) -> bytes:
        """Return the stream of one image, checked against its CRC-32; no other image is read.

        Raises:
            IndexError: there is no such image.
            FormatError: the index or the stream breaks a rule.
        """
        if not 0 <= index < self.header.images.count:
            raise IndexError(f"image {index} of {self.header.images.count}")
        extent = self._index.extent(index)
        _, offset = self._places["images"]
        return self._index.check(index, self._file.read(offset + extent.start, extent.stop - extent.start))

    def pixels(self) -> NDArray[np.uint8]:
        """Return all images decoded, uint8 (N, H, W, 3).

        Raises:
            FormatError: a stream is not the image that the header describes.
        """
        import numpy as np

        images = self.header.images
        pixels = np.empty((images.count, images.height, images.width, 3), np.uint8)
        for index, image in enumerate(self._decoded()):
            pixels[index] = image
        return pixels

    def targets(self) -> NDArray[np.int64]:
        """Return the class of each image, int64 (N,), from 0 to the number of classes less one.

        Raises:
            FormatError: a class that the header does not name.
        """
        import numpy as np

        targets = np.frombuffer(self.read("targets"), wire.TARGET).astype(np.int64)
        if targets.max() >= len(self.header.classes):
            raise FormatError(f"{self.name}: target {targets.max()} of {len(self.header.classes)} classes [H22]")
        return targets

    def verify(self, progress: Progress = silent) -> None:
        """Check all: each digest, each section's rules, each image decoded.

        Raises:
            HelloError: the first fault found.
        """
        for name in self._places:
            if name != "images":  # read when decoded, below
                self.read(name)
        self.targets()
        for _ in track(self._decoded(), self.header.images.count, "Verify", progress):
            pass

    @cached_property
    def _index(self) -> Index:
        section, _ = self._places["images"]
        return Index(self.read("images.index"), section.length, self.name)

    def _decoded(self) -> Iterator[NDArray[np.uint8]]:
        from concurrent.futures import ThreadPoolExecutor

        from hellods.format.codecs import decode

        images, index, streams = self.header.images, self._index, self.read("images")

        def image(number: int) -> NDArray[np.uint8]:
            stream = index.check(number, streams[index.extent(number)])
            return decode(stream, images.codec, images.height, images.width, f"{self.name}: image {number}")

        threads = min(8, os.cpu_count() or 1)  # Pillow decodes without the GIL
        ahead = min(BATCH, max(threads, AHEAD // (3 * images.height * images.width)))
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, images.count, ahead):
                yield from pool.map(image, range(start, min(start + ahead, images.count)))


def write(
    path: str | os.PathLike[str],
    header: Header,
    sections: Mapping[str, bytes],
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> str:
    """Write an archive and return its content id; equal arguments give equal bytes.

    The file is verified before it takes its name, so that a fault, a full disk or an interrupt leaves what was there.

    Args:
        path: The file to write, in an existing folder.
        header: What it says of itself; `sections` are made anew, and keys of others in them are kept.
        sections: Contents by name; unknown names are written as ancillary.
        overwrite: Whether to replace an existing file.
        progress: A callback that is told of the images verified.

    Raises:
        HelloError: the target exists or cannot be written.
        FormatError: header and sections make no valid archive.
    """
    target = Path(path)
    check_target(target, overwrite)
    prologue, parts = _assemble(header, sections, str(target))
    with replacing(target, overwrite) as temporary:
        with temporary.open("xb") as file:
            file.writelines([prologues.emit(prologue), *parts])
            file.flush()
            os.fsync(file.fileno())
        with temporary.open("rb") as file:
            Archive(File(file, str(target))).verify(progress)
    return prologue.digest.hex()


def _assemble(header: Header, sections: Mapping[str, bytes], source: str) -> tuple[prologues.Prologue, list[bytes]]:
    ranks = {name: rank for rank, name in enumerate(wire.KNOWN)}
    names = sorted(sections, key=lambda name: (ranks.get(name, len(ranks)), name))
    encoded = [contents.encode(name, sections[name]) for name in names]
    kept = {entry.name: entry.extra for entry in header.sections}
    entries = tuple(replace(entry, extra=kept.get(entry.name, {})) for entry, _ in encoded)
    header = replace(header, sections=entries)
    data = headers.emit(header)
    headers.parse(data, source)
    parts = [data, *(part for _, stored in encoded for part in (stored, contents.padding(len(stored))))]
    major, minor = header.version
    prologue = prologues.Prologue(
        major=major,
        minor=minor,
        header_length=len(data),
        file_length=wire.ALIGNMENT + sum(map(len, parts)),
        digest=hashlib.sha256(data).digest(),
    )
    return prologue, parts
