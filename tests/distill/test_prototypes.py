"""Prototypes: a head that starts at what real images look like to the tower, and no text."""

from pathlib import Path

import torch

from hellods import Inputs, Recipe, build
from hellods.data.dataset import HelloDataset
from hellods.distill.prototypes import prototypes
from hellods.distill.sources import open_source, squares
from hellods.labels.projector import Projector


def test_prototypes_name_the_images_better_than_texts_that_say_nothing(few_digits: Path) -> None:
    source, held_out = open_source(str(few_digits), seed=0)
    projector = Projector.create("hello-tiny", source.classes, template="{}", ranks=(1, 1), seed=0, head="prototypes")
    found = prototypes(projector, source, 32)
    assert found.shape == (10, 128)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(10))
    projector.begin(found)
    with torch.no_grad():
        answers = projector(squares(held_out, torch.arange(len(held_out)), 32)).argmax(1)
    assert (answers == held_out.targets).float().mean() > 0.3


def test_archive_with_prototypes_makes_labels(few_digits: Path, tmp_path: Path) -> None:
    recipe = Recipe(images_per_class=1, candidates=10, teacher_epochs=2, fit_images=128, head="prototypes")
    path = tmp_path / "x.hello"
    build(Inputs(data=str(few_digits)), recipe, path)
    assert HelloDataset(path).batch([0, 1])[1].cpu().isfinite().all()
