"""SHA-256 of what decides a result: tensors, and the software that computes."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

PACKAGE: Final = Path(__file__).parent
LIBRARIES: Final = ("torch", "torchvision", "open_clip_torch", "timm", "pillow")


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
