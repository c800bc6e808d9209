"""Whoever wrote the file: its content raises an error of ours, or makes labels; nothing else."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hellods import HelloDataset, HelloError
from hellods.errors import FormatError
from hellods.format.archive import Archive

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 7, 2**40, "", "0", "-1", "0.5", "1e9", "a {}", "{} {x}", "../x",
    [], ["1"], [1, 2, 3], {}, {"a": 1},
)  # fmt: skip


def changed(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value with one part, at any depth, missing or another."""
    if isinstance(value, dict):
        for key in value:
            yield {name: inner for name, inner in value.items() if name != key}
            yield from ({**value, key: inner} for inner in [*VALUES, *changed(value[key])])
    elif isinstance(value, list):
        yield from ([*value[:1], inner, *value[2:]] for inner in VALUES)


def survives(make: Callable[..., Path], path: Path, **changes: Any) -> bool:
    """Return whether labels were made; anything but an error of ours fails the test."""
    try:
        images, labels = HelloDataset(make(path, **changes)).batch([0, 3])
    except HelloError as error:
        if isinstance(error, FormatError) and not re.search(r" \[[HC]\d+\]$", str(error)):
            raise
        return False
    assert labels.isfinite().all()
    return len(images) == 2


@pytest.mark.parametrize("part", ["views", "projector"])
def test_changed_header_raises_ours_or_makes_labels(
    make: Callable[..., Path], archive: Path, tmp_path: Path, part: str
) -> None:
    with Archive.open(archive) as opened:
        value = getattr(opened.header, part)
    variants = {json.dumps(variant): variant for variant in changed(value)}
    made = [survives(make, tmp_path / "x.hello", **{part: variant}) for variant in variants.values()]
    assert len(made) > 100
    assert not all(made)


@pytest.mark.parametrize("section", ["projector", "probe"])
def test_changed_tensors_raise_ours_or_make_labels(
    make: Callable[..., Path], archive: Path, tmp_path: Path, section: str
) -> None:
    with Archive.open(archive) as opened:
        tensors = safetensors.torch.load(opened.read(section))
    for name, tensor in tensors.items():
        others = [
            torch.zeros(0),
            torch.zeros(3, 3),
            tensor.double(),
            tensor.flatten()[:1],
            tensor * 0 - 1,
            tensor[None],
        ]
        if tensor.is_floating_point():
            others.append(tensor * torch.nan)
        for other in others:
            content = safetensors.torch.save({**tensors, name: other.contiguous()})
            survives(make, tmp_path / "x.hello", sections={section: content})
        del_one = {key: value for key, value in tensors.items() if key != name}
        assert not survives(make, tmp_path / "x.hello", sections={section: safetensors.torch.save(del_one)})
