"""What the classes are called, and what a projector is fitted on."""

import pytest
import torch

from hellods.distill.arrange import arrange, describe, lessons
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resolve import resolve
from hellods.errors import SourceError
from hellods.sources.source import Pixels


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [(None, ("a b", "c")), ({"a_b": "thing", "c": "other", "unused": "x"}, ("thing", "other"))],
)
def test_classes_are_described_by_the_user_or_their_folders(
    descriptions: dict[str, str] | None, expected: tuple[str, ...]
) -> None:
    assert describe(("a_b", "c"), descriptions) == expected


def test_class_without_description_is_named() -> None:
    with pytest.raises(SourceError, match=r"none for c; each class folder needs one"):
        describe(("a_b", "c"), {"a_b": "thing"})
    with pytest.raises(SourceError, match="none for c, while no class folder is named d, e; each"):
        describe(("a_b", "c"), {"a_b": "thing", "d": "dog", "e": "eel"})


def test_classes_that_no_text_tells_apart_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert describe(("a", "b", "c"), {"a": "cat", "b": "dog", "c": "cat"}) == ("cat", "dog", "cat")
    assert [record.getMessage() for record in caplog.records] == [
        "class descriptions: several classes are called cat, which no text tells apart"
    ]


def test_a_text_that_is_too_long_is_refused_before_anything_is_made() -> None:
    with pytest.raises(SourceError, match=r"has 300 characters: 256 are read; give a shorter one"):
        describe(("a" * 300, "b"), None)


def test_projector_is_fitted_on_the_images_of_the_file_as_students_see_them_or_on_crops_of_real_ones() -> None:
    source = Pixels("black", ("a", "b"), [0, 1], torch.zeros(2, 3, 128, 128, dtype=torch.uint8))
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 128, 128)
    own = resolve(Recipe(images_per_class=2), Inputs(data="x"), source, 32)
    views = arrange(own)[1]
    seen, how = lessons(own, source, images, views)
    assert how == views
    assert seen.targets.tolist() == [0, 0, 1, 1]
    assert torch.equal(seen.image(3), images[3])
    given = Inputs(data="x", teacher="resnet18", teacher_weights="w.pt")
    real = resolve(Recipe(assistant="none"), given, source, 32)
    assert real.teacher_stages is None
    seen, how = lessons(real, source, images, views)
    assert seen is source
    assert (how.size, how.scale, how.shuffle) == (128, (0.08, 1.0), 1)
