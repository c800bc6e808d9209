"""What a build has done so far, kept beside its archive: a build that was killed goes on from there."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hellods.digests import digest
from hellods.errors import HelloError
from hellods.format.files import replacing
from hellods.train import Checkpoint

logger = logging.getLogger("hellods")

INTERVAL: Final = 30.0  # seconds between two writes of a stage
LONG: Final = 1.5  # seconds of a write, from which on the interval grows with it
STAGES: Final = ("teacher", "assistant", "images", "projector", "quantize")


class Work:
    """The folder `.NAME.build` beside an archive NAME, with a safetensors file for each stage and its facts.

    A file counts only where its tensors have the digest that it states. Those of other facts, as of a build by another
    recipe, are ignored, and deleted once an archive is written. Entered as a context, it locks the folder.
    """

    def __init__(self, out: str | os.PathLike[str], facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(f".{self.out.name}.build")
        self.facts = dict(facts)  # what JSON holds, and all that decides what the stages make
        self._files: list[Path] = []  # of the stages that were asked for
        self._lock = FileLock(self.folder / "lock")

    def __enter__(self) -> Self:
        """Keep other builds from this folder.

        Raises:
            HelloError: another one is at work in it, or it cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as cause:
            raise HelloError(f"{self.out}: another build is at work on it: wait, or give another name") from cause
        except NotImplementedError:  # a file system without locks
            pass
        except OSError as cause:
            raise HelloError(f"{self.folder}: cannot be made: {cause.strerror or cause}: give another name") from cause
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        files = [file for file in dict.fromkeys(self._files) if file.exists()]
        if kind is not None and files:
            stages = ", ".join(file.name.partition("-")[0] for file in files)
            size = sum(file.stat().st_size for file in files) / 1e6
            logger.warning(
                "%s keeps what was done (%s; %.0f MB): the same build goes on from there. Delete it where that is not "
                "wanted",
                self.folder,
                stages,
                size,
            )
        with contextlib.suppress(OSError):  # on Windows releasing removes it
            Path(self._lock.lock_file).unlink()
        self._lock.release()
        with contextlib.suppress(OSError):  # something is in it
            self.folder.rmdir()

    def given(self, **facts: Any) -> "Work":
        """Return the same folder, for stages that more facts decide."""
        work = Work(self.out, self.facts | facts)
        work._files = self._files
        return work

    def stage(self, name: str) -> "Stage":
        """Return what is known of one of STAGES."""
        assert name in STAGES  # or it would not be removed
        key = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:12]
        file = self.folder / f"{name}-{key}.safetensors"
        self._files.append(file)
        if not file.exists():
            for other in self.folder.glob(f"{name}-*.safetensors"):
                logger.info("%s: of another build (%s), so this stage begins anew", other, _unlike(other, self.facts))
        return Stage(file, self.facts)

    def remove(self) -> None:
        """Delete what the stages saved, of other builds of this archive too."""
        for pattern in (*(f"{name}-*.safetensors" for name in STAGES), ".*.tmp"):
            for file in self.folder.glob(pattern):
                with contextlib.suppress(OSError):  # on Windows, while another program reads it
                    file.unlink()


class Stage(Checkpoint):
    """A stage that goes on from its file, which is written at the end and now and then before."""

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(_read(file))
        self.file, self.facts = file, facts
        self._next = time.monotonic() + INTERVAL

    def save(self, done: int, total: int, state: Callable[[], dict[str, Tensor]]) -> None:
        """Write the state at the last step, or when INTERVAL has passed; if that fails, the build goes on."""
        if done < total and time.monotonic() < self._next:
            return
        start = time.monotonic()
        tensors = {name: value.contiguous() for name, value in state().items()}  # safetensors knows one order alone
        content = save(tensors, {"facts": json.dumps(self.facts), "sha256": digest(tensors)})
        try:
            self.file.parent.mkdir(exist_ok=True)
            with replacing(self.file, overwrite=True) as temporary:
                temporary.write_bytes(content)
        except (HelloError, OSError) as cause:  # such as a full disk, which may have room later
            logger.warning("%s; if this build is killed now, the next begins this stage anew", cause)
        now = time.monotonic()
        self._next = now + INTERVAL * max(1.0, (now - start) / LONG)


def _unlike(file: Path, facts: Mapping[str, Any]) -> str:
    """Return which facts of a stage's file are others."""
    try:
        with safe_open(file, "pt") as content:
            known = json.loads((content.metadata() or {})["facts"])
    except (SafetensorError, OSError, ValueError, KeyError):
        return "damaged"
    return ", ".join(sorted(key for key in known.keys() | facts.keys() if known.get(key) != facts.get(key)))


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a stage; none if there is no file, or one that must not be used."""
    if not file.exists():
        return {}
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            # A copy: the file may be replaced while its tensors are in use.
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
        intact = digest(tensors) == metadata["sha256"]
    except (SafetensorError, OSError, KeyError):
        intact = False
    if not intact:
        logger.info("%s: damaged, so this stage begins anew", file)
        return {}
    logger.info("%s: this stage goes on from there", file)
    return tensors
