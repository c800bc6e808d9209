"""An archive that holds its base model makes labels from nothing else, whoever wrote it."""

import json
import random
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hellods import HelloDataset, HelloError, LabelError
from hellods.format.archive import Archive, write
from hellods.labels.backbones import BACKBONES

from .test_hostile import changed

INDICES = list(range(10))


def rewritten(
    archive: Path, to: Path, *, without: str = "", sections: dict[str, bytes] | None = None, **changes: Any
) -> Path:
    """Write an archive like another one, with some sections and some of its header's projector changed."""
    with Archive.open(archive) as old:
        kept = {section.name: old.read(section.name) for section in old.header.sections if section.name != without}
        header = replace(old.header, projector={**(old.header.projector or {}), **changes})
        write(to, header, kept | (sections or {}), overwrite=True)
    return to


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no network, and no base model anywhere."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the archive holds all that labels need")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(BACKBONES, "open_clip", refuse)


@pytest.fixture
def outside(embedded_archive: Path, small_base: Path, tmp_path: Path) -> torch.Tensor:
    """Logits of the same archive without its base model, made with the base model's folder."""
    path = rewritten(embedded_archive, tmp_path / "outside.hello", without="backbone", tower=None)
    with pytest.raises(LabelError, match=r"needs? the base model 'small' .* not in the file"):
        HelloDataset(path).batch([0])
    return HelloDataset(path, labels="logits", base=f"local-dir:{small_base}").batch(INDICES)[1]


def test_labels_are_those_of_the_base_outside_bit_for_bit(
    embedded_archive: Path, outside: torch.Tensor, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("alone")
    assert torch.equal(HelloDataset(embedded_archive, labels="logits").batch(INDICES)[1], outside)


def test_base_that_is_given_takes_the_place_of_the_one_held(
    embedded_archive: Path, small_base: Path, outside: torch.Tensor, tmp_path: Path
) -> None:
    broken = rewritten(embedded_archive, tmp_path / "x.hello", sections={"backbone": safetensors.torch.save({})})
    given = HelloDataset(broken, labels="logits", base=f"local-dir:{small_base}")
    assert torch.equal(given.batch(INDICES)[1], outside)
    with pytest.raises(LabelError, match="base model 'hello-tiny' has SHA-256"):
        HelloDataset(embedded_archive, base="hello-tiny").batch([0])


def test_other_activation_than_the_archive_was_made_with_is_found(
    embedded_archive: Path, small_base: Path, tmp_path: Path
) -> None:
    path = rewritten(embedded_archive, tmp_path / "x.hello", quick_gelu=False)
    with pytest.raises(LabelError, match="labels differ from the archive's probe"):
        HelloDataset(path).batch([0])
    with pytest.raises(LabelError, match="computes with QuickGELU, but the archive was made with GELU"):
        HelloDataset(path, base=f"local-dir:{small_base}").batch([0])


def survives(path: Path) -> bool:
    """Return whether labels were made; anything but an error of ours fails the test."""
    try:
        _, labels = HelloDataset(path).batch([0, 3])
    except HelloError:
        return False
    return bool(labels.isfinite().all())


@pytest.mark.usefixtures("alone")
def test_changed_tower_raises_ours_or_makes_labels(embedded_archive: Path, tmp_path: Path) -> None:
    with Archive.open(embedded_archive) as archive:
        tower = (archive.header.projector or {})["tower"]
    variants = list({json.dumps(variant): variant for variant in changed(tower)}.values())
    variants = random.Random(0).sample(variants, 100)
    variants += [tower | {"timm_model_name": name} for name in ("hf-hub:a/b", "local-dir:/", "resnet18")]
    made = [survives(rewritten(embedded_archive, tmp_path / "x.hello", tower=one)) for one in variants]
    assert 0 < sum(made) < 30  # such as those that change only what a transformer does not look at


@pytest.mark.usefixtures("alone")
def test_changed_tensors_raise_ours(embedded_archive: Path, tmp_path: Path) -> None:
    with Archive.open(embedded_archive) as archive:
        tensors = safetensors.torch.load(archive.read("backbone"))
    for name in ("texts", "tower.conv1.weight", "tower.class_embedding", "tower.proj"):
        tensor = tensors[name]
        others = [
            None,
            torch.zeros(0),
            tensor.double(),
            tensor.flatten()[:1],
            tensor[None],
            tensor * torch.nan,
            tensor + 1,
        ]
        for other in others:
            content = {key: value for key, value in {**tensors, name: other}.items() if value is not None}
            section = safetensors.torch.save({key: value.contiguous() for key, value in content.items()})
            assert not survives(rewritten(embedded_archive, tmp_path / "x.hello", sections={"backbone": section}))
