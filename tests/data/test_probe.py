from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from hellods.data.probe import PROBE_SEED, check_probe, make_probe
from hellods.errors import FormatError, HelloError, LabelError
from hellods.labels import LabelMaker
from hellods.labels.config import Precision
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

VIEWS = Views(size=8, mix="cutmix")
IMAGES = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(192, 5, generator=torch.Generator().manual_seed(1))


def label_maker(images: Tensor) -> Tensor:
    return nn.functional.gelu(images.flatten(1).float() / 255 @ WEIGHTS)


def check(
    probe: dict[str, Tensor],
    label_maker: LabelMaker,
    images: Tensor,
    precision: Precision = "fp32",
) -> None:
    def view(epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        return render(images, draw(VIEWS, (8, 8), len(images), PROBE_SEED, epochs, indices))

    check_probe(probe, label_maker, view, len(images), "x.hello", precision=precision)


PROBE = make_probe(label_maker, IMAGES, VIEWS)


def test_honest_answers_pass() -> None:
    check(PROBE, lambda images: label_maker(images) + 1e-4, IMAGES)


def test_probe_covers_other_images_and_epochs() -> None:
    assert (len(PROBE["indices"].unique()), len(PROBE["epochs"].unique())) == (8, 8)
    assert int(PROBE["indices"].max()) > 8


def test_probe_of_fewer_images_than_views_passes() -> None:
    check(make_probe(label_maker, IMAGES[:3], VIEWS), label_maker, IMAGES[:3])


def test_one_level_of_one_pixel_is_an_image_decoder_that_differs() -> None:
    other = IMAGES ^ (torch.arange(12) == int(PROBE["indices"][3])).view(-1, 1, 1, 1).byte()
    with pytest.raises(LabelError, match=r"^x\.hello: the images decode to other pixels"):
        check(PROBE, label_maker, other)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: label_maker(images).flip(1),
        lambda images: nn.functional.silu(images.flatten(1).float() / 255 @ WEIGHTS),
    ],
    ids=["weights", "activation"],
)
def test_other_logits_are_a_base_that_differs(wrong: nn.Module) -> None:
    with pytest.raises(LabelError, match="other base weights or another activation"):
        check(PROBE, wrong, IMAGES)


def check_on_a_gpu(gain: float, precision: Precision = "fp32") -> None:
    """Check answers that a GPU would give multiplied by `gain`, and a CPU as they should be."""
    seen: list[torch.device] = []

    def view(epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        seen.append(device)
        return render(IMAGES, draw(VIEWS, (8, 8), len(IMAGES), PROBE_SEED, epochs, indices))

    def answers(images: Tensor) -> Tensor:
        return label_maker(images) * (gain if seen[-1].type == "cuda" else 1)

    check_probe(PROBE, answers, view, len(IMAGES), "x.hello", device=torch.device("cuda:0"), precision=precision)


def test_answers_that_are_right_on_the_cpu_alone_are_a_fault_of_the_device() -> None:
    with pytest.raises(LabelError, match=r"made on cuda:0 differ .* CPU do not: a numerical fault of cuda:0"):
        check_on_a_gpu(1.1)


def test_device_may_be_off_by_what_its_precision_allows() -> None:
    check_on_a_gpu(1.02, "bf16")


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("bf16", True)])
def test_tolerance_is_that_of_the_precision(precision: Precision, passes: bool) -> None:
    with nullcontext() if passes else pytest.raises(LabelError, match="limit 1e-03"):
        check(PROBE, lambda images: label_maker(images) * 1.005, IMAGES, precision)


def test_answer_that_is_not_finite_is_a_numerical_fault() -> None:
    with pytest.raises(LabelError, match="numerical fault"):
        check(PROBE, lambda images: label_maker(images) / 0, IMAGES)


BROKEN = {
    "missing tensor": {name: PROBE[name] for name in ("indices", "epochs", "digest")},
    "other tensor": PROBE | {"extra": PROBE["logits"]},
    "other dtype": PROBE | {"epochs": PROBE["epochs"].int()},
    "other length": PROBE | {"logits": PROBE["logits"][1:]},
    "short digest": PROBE | {"digest": PROBE["digest"][:, 1:].contiguous()},
    "too many views": {name: torch.cat([tensor] * 9) for name, tensor in PROBE.items()},
    "no views": {name: tensor[:0] for name, tensor in PROBE.items()},
    "image out of range": PROBE | {"indices": PROBE["indices"] + 5},
    "image below zero": PROBE | {"indices": PROBE["indices"] - 1},
    "epoch below zero": PROBE | {"epochs": PROBE["epochs"] - 1},
    "logits not finite": PROBE | {"logits": PROBE["logits"] / 0},
    "another number of classes": PROBE | {"logits": PROBE["logits"][:, 1:].contiguous()},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_probe_is_refused(fault: str) -> None:
    with pytest.raises(FormatError, match=r"^x\.hello: "):
        check(BROKEN[fault], label_maker, IMAGES)


def test_errors_are_one_line() -> None:
    with pytest.raises(HelloError) as error:
        check(PROBE, label_maker, IMAGES.flip(0))
    assert "\n" not in str(error.value)
