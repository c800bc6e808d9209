"""Files: read in parts, replaced whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hellods.errors import FormatError, HelloError


class File:
    """A file open for reading, one thread at a time.

    Attributes:
        name: the file in messages.
        path: None when a file object was given.
        size: bytes.
    """

    def __init__(self, file: BinaryIO, name: str, path: Path | None = None) -> None:
        self.name = name
        self.path = path
        self._file = file
        with _told(f"{name}: cannot be read"):
            self.size = file.seek(0, os.SEEK_END)

    @classmethod
    def open(cls, source: str | os.PathLike[str] | BinaryIO) -> File:
        """Return the file at a path, or over a binary file object that can seek and that the caller closes.

        Raises:
            HelloError: there is no such file, or it cannot be read.
        """
        if not isinstance(source, (str, os.PathLike)):
            return cls(source, str(getattr(source, "name", "archive")))
        path = local(source)
        with _told(f"{path}: cannot be read"):
            if not path.is_file():  # a pipe would wait forever
                raise HelloError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
            return cls(path.open("rb"), str(path), path)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            HelloError: they cannot be read.
            FormatError: there are fewer.
        """
        with _told(f"{self.name}: cannot be read"):
            self._file.seek(offset)
            data = self._file.read(length)
        if len(data) != length:
            raise FormatError(f"{self.name}: became shorter while it was open [H4]")
        return data

    def close(self) -> None:
        """Close the file, if `open` opened it."""
        if self.path is not None:
            self._file.close()


def local(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file.

    Raises:
        HelloError: it is an address.
    """
    if "://" in os.fspath(path):
        raise HelloError(f"{path}: is an address: download it, and give the file")
    return Path(path)


def check_target(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check, before work starts, that a file can be written at `path`.

    Raises:
        HelloError: its folder is missing or not writable, or something stands there that must not be replaced.
    """
    target = Path(path)
    with _told(f"{target}: cannot be written"):
        if not target.parent.is_dir():
            raise HelloError(f"{target}: there is no folder {target.parent}: create it first")
        if target.exists() and not target.is_file():
            raise HelloError(f"{target}: is not a file: give another name")
        if os.path.lexists(target) and not overwrite:
            raise HelloError(_exists(target))
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise HelloError(f"{target}: the folder {target.parent} is not writable: choose another")


@contextlib.contextmanager
def replacing(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a new name beside `target`; the file written there becomes `target` when the block ends well.

    Raises:
        HelloError: the file cannot be written, or the target has come to exist meanwhile.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with _told(f"{target}: cannot be written"):
            yield temporary
            _publish(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise HelloError(f"{what}: {cause.strerror or cause}") from cause


def _exists(target: Path) -> str:
    return f"{target}: exists already: give another name, or `overwrite=True` to replace it"


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    try:
        if overwrite:
            temporary.replace(target)
        else:
            _link(temporary, target)
    except FileExistsError as cause:
        raise HelloError(_exists(target)) from cause
    with contextlib.suppress(OSError):  # not every system can sync a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _link(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)  # unlike a rename, this fails when the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as exFAT: take the name, then replace
        target.open("xb").close()
        temporary.replace(target)
