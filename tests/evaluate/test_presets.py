"""The presets are the published protocols, and what the user leaves open follows the archive."""

from dataclasses import replace
from typing import Any

import pytest

from hellods.errors import OptionError
from hellods.evaluate.presets import PRESETS, Protocol, ResolvedProtocol, batch_size, resolve
from hellods.views.rule import Views

VIEWS = Views(size=32, scale=(0.5, 1.0), shuffle=2, mix="cutmix")


def resolved(images: int = 100, classes: int = 10, **knobs: Any) -> ResolvedProtocol:
    return resolve(Protocol(**knobs), VIEWS, images, classes)[0]


def test_defaults_are_rded() -> None:
    protocol = resolve(PRESETS["rded"], VIEWS, 100, 10)[0]
    assert protocol == ResolvedProtocol(
        student="convnet3", epochs=300, batch_size=50, learning_rate=1e-3, weight_decay=0.01,
        lr_schedule="half-cosine", loss="kl", temperature=20.0, hard_weight=0.0, min_scale=0.5, shuffle=2, mix="cutmix",
    )  # fmt: skip


def test_sre2l_sees_whole_crops_of_eight_percent_in_batches_of_1024() -> None:
    protocol, views = resolve(PRESETS["sre2l"], VIEWS, 10_000, 1000)
    assert (protocol.batch_size, protocol.lr_schedule, protocol.temperature) == (1024, "cosine", 20.0)
    assert views == Views(size=32, scale=(0.08, 1.0), shuffle=1, mix="cutmix")


def test_hello_learns_logits_and_a_tenth_of_the_truth() -> None:
    protocol = resolve(PRESETS["hello"], VIEWS, 100, 10)[0]
    assert (protocol.loss, protocol.hard_weight, protocol.temperature) == ("mse", 0.1, None)


@pytest.mark.parametrize(
    ("images_per_class", "classes", "expected"),
    [(1, 10, 10), (10, 10, 50), (50, 10, 100), (1, 100, 20), (10, 100, 100), (50, 1000, 200),
     (9, 10, 10), (49, 10, 50), (1000, 99, 100)],
)  # fmt: skip
def test_batches_are_rdeds(images_per_class: int, classes: int, expected: int) -> None:
    assert batch_size(images_per_class, classes) == expected


def test_a_batch_is_no_larger_than_the_archive() -> None:
    assert resolved(images=6, classes=3).batch_size == 6
    assert resolved(images=6, classes=3, batch_size=1024).batch_size == 6


@pytest.mark.parametrize(("size", "student"), [(64, "convnet3"), (65, "resnet18")])
def test_student_is_what_the_field_has_for_the_size_of_the_views(size: int, student: str) -> None:
    filled, _ = resolve(Protocol(), Views(size=size), 10, 10)
    assert filled.student == student


@pytest.mark.parametrize(
    ("student", "expected"),
    [("convnet3", 1e-3), ("resnet18", 1e-3), ("efficientnet_b0", 2e-3), ("mobilenet_v2", 2.5e-3), ("vgg11", 5e-4),
     ("vit_b_16", 1e-4), ("swin_v2_t", 1e-4)],
)  # fmt: skip
def test_learning_rates_are_rdeds(student: str, expected: float) -> None:
    assert resolved(student=student).learning_rate == expected


def test_temperature_is_four_with_mixup_and_none_with_mse() -> None:
    assert resolved(mix="mixup").temperature == 4.0
    assert resolved(mix="none").temperature == 20.0
    assert resolved(loss="mse").temperature is None


def test_what_the_user_says_stays() -> None:
    knobs = {"batch_size": 7, "learning_rate": 0.0, "temperature": 3.0, "min_scale": 0.25, "shuffle": 1, "mix": "none"}
    protocol, views = resolve(Protocol(**knobs), VIEWS, 100, 10)  # type: ignore[arg-type]
    assert {name: getattr(protocol, name) for name in knobs} == knobs
    assert views == Views(size=32, scale=(0.25, 1.0), shuffle=1, mix="none")


def test_views_are_the_archives_where_nothing_is_said() -> None:
    assert resolve(Protocol(), VIEWS, 100, 10)[1] == VIEWS


def test_a_crop_may_show_more_than_the_archives_largest() -> None:
    small = Views(size=32, scale=(0.1, 0.2))
    assert resolve(Protocol(min_scale=0.5), small, 100, 10)[1].scale == (0.5, 0.5)


@pytest.mark.parametrize(
    "knobs",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"hard_weight": -0.1},
     {"temperature": 0.0}, {"min_scale": 0.0}, {"min_scale": 1.5}, {"shuffle": 17}, {"weight_decay": float("inf")}],
)  # fmt: skip
def test_a_knob_out_of_range_is_named(knobs: dict[str, Any]) -> None:
    (name,) = knobs
    with pytest.raises(OptionError, match=rf"{name} is .*, expected .* to "):
        Protocol(**knobs)


@pytest.mark.parametrize("knobs", [{"loss": "l1"}, {"lr_schedule": "step"}, {"mix": "blend"}])
def test_an_unknown_choice_is_named(knobs: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="expected one of"):
        Protocol(**knobs)


def test_a_temperature_for_mse_is_refused() -> None:
    with pytest.raises(OptionError, match="belongs to the loss kl"):
        Protocol(loss="mse", temperature=4.0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_take_either_loss(name: str) -> None:
    assert {replace(PRESETS[name], loss=loss).loss for loss in ("kl", "mse")} == {"kl", "mse"}
