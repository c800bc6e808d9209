"""Distilled data sets in one file: synthetic images, and soft labels made on the fly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hellods.errors import (
    DigestError,
    FormatError,
    HelloError,
    LabelError,
    OptionError,
    SourceError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from hellods.data.dataset import HelloDataset
    from hellods.data.loader import HelloLoader
    from hellods.distill.build import build
    from hellods.distill.recipe import Inputs, Recipe
    from hellods.format.archive import Archive
    from hellods.views.rule import Views

__version__ = "0.1.0"

__all__ = [
    "Archive",
    "DigestError",
    "FormatError",
    "HelloDataset",
    "HelloError",
    "HelloLoader",
    "Inputs",
    "LabelError",
    "OptionError",
    "Recipe",
    "SourceError",
    "UnsupportedError",
    "Views",
    "build",
]

# torch costs seconds to import, so what needs it is imported on first use.
HOMES = {
    "Archive": "hellods.format.archive",
    "HelloDataset": "hellods.data.dataset",
    "HelloLoader": "hellods.data.loader",
    "Inputs": "hellods.distill.recipe",
    "Recipe": "hellods.distill.recipe",
    "Views": "hellods.views.rule",
    "build": "hellods.distill.build",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
