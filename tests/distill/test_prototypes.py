"""Prototypes: a head that starts at what real images look like to the tower, and no text."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hellods import Inputs, Recipe, build
from hellods.data.dataset import HelloDataset
from hellods.distill.prototypes import prototypes
from hellods.errors import LabelError
from hellods.labels.projector import Projector
from hellods.sources.source import open_source, squares


def test_prototypes_name_the_images_better_than_texts_that_say_nothing(few_digits: Path) -> None:
    source, held_out = open_source(str(few_digits), seed=0)
    projector = Projector.create("hello-tiny", source.classes, template="{}", ranks=(1, 1), seed=0, head="prototypes")
    found = prototypes(projector, source, 32)
    assert found.shape == (10, 128)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(10))
    projector.set_prototypes(found)
    with torch.no_grad():
        answers = projector(squares(held_out, torch.arange(len(held_out)), 32)).argmax(1)
    assert (answers == held_out.targets).float().mean() > 0.3


RECIPE = Recipe(images_per_class=1, candidates=10, teacher_epochs=2, fit_views=128, head="prototypes")


def test_archive_with_prototypes_makes_labels(few_digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.hello"
    build(Inputs(data=str(few_digits)), RECIPE, out=path)
    assert HelloDataset(path).batch([0, 1])[1].cpu().isfinite().all()


@pytest.mark.parametrize("embed", [False, True])
def test_tower_without_texts_makes_an_archive_and_its_labels(
    embed: bool, few_digits: Path, image_base: Path, small_base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.hello"
    build(Inputs(data=str(few_digits), base=f"local-dir:{image_base}"), replace(RECIPE, embed_base=embed), out=path)
    # The first label of each answers the probe. Text towers have no part in them, be there one or none.
    bases = [f"local-dir:{image_base}", f"local-dir:{small_base}", *([None] if embed else [])]
    labels = [HelloDataset(path, labels="logits", base=base).batch(range(10))[1] for base in bases]
    assert all(torch.equal(one, labels[0]) for one in labels)
    assert labels[0].std() > 0


def test_tower_without_texts_is_refused_for_a_head_of_texts(few_digits: Path, image_base: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"has no text tower.*`head='prototypes'`"):
        build(Inputs(data=str(few_digits), base=f"local-dir:{image_base}"), Recipe(), out=tmp_path / "x.hello")
    assert not (tmp_path / "x.hello").exists()
