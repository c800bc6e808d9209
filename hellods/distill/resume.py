"""What a build has done so far, kept beside its archive: a build that was killed goes on from there."""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hellods.errors import HelloError
from hellods.format.files import replacing
from hellods.train import Checkpoint

logger = logging.getLogger("hellods")

INTERVAL: Final = 30.0  # seconds between two writes of a stage; one write may take a second
PACKAGE: Final = Path(__file__).parents[1]
LIBRARIES: Final = ("torch", "torchvision", "open_clip_torch", "timm", "pillow")
STAGES: Final = ("teacher", "assistant", "images", "projector", "quantize")


class Work:
    """The folder `.NAME.build` beside an archive NAME, with a safetensors file for each stage.

    A file counts only where it was made from the same facts, and where its tensors have the digest that it states.
    """

    def __init__(self, out: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(f".{self.out.name}.build")
        self.facts = dict(facts)  # what JSON holds, and all that decides what the stages make

    def given(self, **facts: Any) -> "Work":
        """Return the same folder, for stages that more facts decide."""
        return Work(self.out, self.facts | facts)

    def stage(self, name: str) -> "Stage":
        """Return what is known of one of STAGES."""
        assert name in STAGES  # or it would not be removed
        return Stage(self.folder / f"{name}.safetensors", self.facts)

    def remove(self) -> None:
        """Delete what the stages saved, and the folder if nothing else is in it."""
        for file in (*(self.folder / f"{name}.safetensors" for name in STAGES), *self.folder.glob(".*.tmp")):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class Stage(Checkpoint):
    """A stage that goes on from its file, which is written at the end and now and then before."""

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(_read(file, facts))
        self.file, self.facts = file, facts
        self._next = time.monotonic() + INTERVAL

    def save(self, done: int, total: int, state: Callable[[], dict[str, Tensor]]) -> None:
        """Write the state at the last step, or when INTERVAL has passed; one that cannot be written is done without."""
        if done < total and time.monotonic() < self._next:
            return
        tensors = {name: value.contiguous() for name, value in state().items()}  # safetensors knows one order alone
        content = save(tensors, {"facts": json.dumps(self.facts), "sha256": digest(tensors)})
        try:
            self.file.parent.mkdir(exist_ok=True)
            with replacing(self.file, overwrite=True) as temporary:
                temporary.write_bytes(content)
            self._next = time.monotonic() + INTERVAL
        except (HelloError, OSError) as cause:  # such as a full disk
            logger.warning("%s; if this build is killed, the next begins this stage anew", cause)
            self._next = math.inf


@cache
def software() -> dict[str, Any]:
    """Return what computes: the digest of this package's code, and the versions of what it rests on."""
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))))
    return {"hellods": code.hexdigest(), "libraries": {name: version(name) for name in LIBRARIES}}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        state.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _read(file: Path, facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a stage; none if there is no file, or one that must not be used."""
    if not file.exists():
        return {}
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            # A copy: the file may be replaced while its tensors are in use.
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
        known = json.loads(metadata["facts"])
        intact = digest(tensors) == metadata["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError):
        intact = False
    if not intact:
        logger.info("%s: damaged, so this stage begins anew", file)
        return {}
    differ = sorted(key for key in known.keys() | facts.keys() if known.get(key) != facts.get(key))
    if differ:
        logger.info("%s: of another build (%s), so this stage begins anew", file, ", ".join(differ))
        return {}
    logger.info("%s: this stage goes on from there", file)
    return tensors
