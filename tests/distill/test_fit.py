"""Fitting: the projector comes closer to the teacher on views that it has not seen, deltas alone learn."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from hellods.device import training_dtype
from hellods.distill.fit import Fit, fit_projector, quantize_projector
from hellods.labels.projector import Projector
from hellods.sources.source import Pixels
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

CLASSES = ("red", "green", "blue")
FIT = Fit(views=10_240, batch_size=16, learning_rate=0.004, head_learning_rate=0.01, hard_weight=0.1, seed=0)


def brightest(images: Tensor) -> Tensor:
    """A teacher: logits are the means of the three channels."""
    return images.float().mean((2, 3)) / 20 - 6


def source() -> Pixels:
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 256, (48, 3, 1, 1), generator=generator)
    noise = torch.randint(0, 60, (48, 3, 32, 32), generator=generator)
    images = ((base * 3 + noise) // 4).to(torch.uint8)
    return Pixels("colors", CLASSES, images.float().mean((2, 3)).argmax(1).tolist(), images)


def projector() -> Projector:
    return Projector.create("hello-tiny", CLASSES, template="a photo of a {}", ranks=(4, 2), seed=0)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean square of what softmax sees of the difference of logits."""
    off = one.detach() - other
    return (off - off.mean(1, keepdim=True)).square().mean()


@cache
def known(precision: torch.dtype) -> Projector:
    """A projector fitted on 640 views; not to be changed."""
    return fitted(640, precision)


def fitted(images: int, precision: torch.dtype | None = None) -> Projector:
    made = projector()
    fit = replace(FIT, views=images, precision=precision)
    fit_projector(made, brightest, source(), Views(size=32), fit)
    return made


def test_fitting_brings_the_projector_to_the_teacher_on_new_views() -> None:
    images = source().images
    views = render(images, draw(Views(size=32), (32, 32), 48, 99, 0, torch.arange(48)))
    before, after = (apart(made(views), brightest(views)) for made in (projector(), known(training_dtype("cpu"))))
    assert after < before / 4


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_fitting_in_either_precision_comes_to_the_teacher_as_well(precision: torch.dtype) -> None:
    images = source().images
    made = (projector(), known(precision))
    before, after = (apart(one(images), brightest(images)) for one in made)
    assert after < before / 4


def test_mean_of_the_logits_is_the_teachers_though_no_step_learns_it() -> None:
    images = source().images

    def far(images: Tensor) -> Tensor:
        return brightest(images) + 50

    made = projector()
    fit_projector(made, far, source(), Views(size=32), replace(FIT, views=64))
    assert abs((made(images) - far(images)).mean().item()) < 0.5


def test_teacher_and_projector_are_shown_the_very_same_views() -> None:
    asked: list[Tensor] = []
    answered: list[Tensor] = []
    made = projector()
    made.register_forward_pre_hook(lambda _, shown: asked.append(shown[0]))

    def teacher(images: Tensor) -> Tensor:
        answered.append(images.clone())
        return brightest(images)

    views = Views(size=32, scale=(0.3, 1.0), flip=True, mix="cutmix")
    fit_projector(made, teacher, source(), views, replace(FIT, views=5 * FIT.batch_size))
    assert len(asked) == len(answered) == 5 + 1  # and one batch to find the mean logit on
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(asked, answered, strict=True))
    assert not torch.equal(asked[0], asked[1])


def test_fitting_leaves_the_base_model_as_it_is() -> None:
    before, after = (made.state_dict() for made in (projector(), fitted(32)))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learns = {name for name, value in projector().named_parameters() if value.requires_grad}
    assert {"bias", "scale"} < changed <= learns


def test_same_seed_gives_the_same_projector() -> None:
    first, second = (fitted(48).state() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_quantized_to_few_bits_it_says_what_it_said_before() -> None:
    made = deepcopy(known(torch.float32))
    images = source().images
    before = made(images).detach()
    made.config = replace(made.config, quantization="int4")
    rounded = deepcopy(made)
    rounded.quantize()
    quantize_projector(made, source(), Views(size=32), replace(FIT, views=2560, batch_size=4))
    stored = projector()
    stored.config = made.config
    stored.load(made.state())
    off, worse = (apart(maker(images), before) for maker in (stored, rounded))
    assert off < worse / 2
    assert torch.equal(stored(images), made(images))
