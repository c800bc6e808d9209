from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hellods.device import CPU
from hellods.errors import FormatError
from hellods.format.wire import MAX_VIEWS, PROBE_SEED
from hellods.labels import LabelMaker
from hellods.labels.config import Precision
from hellods.probe import PART, Probe, answer_probe, make_probe, probe_fault
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

VIEWS = Views(size=8, mix="cutmix")
IMAGES = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(192, 5, generator=torch.Generator().manual_seed(1))
CUDA = torch.device("cuda:0")


def label_maker(images: Tensor) -> Tensor:
    return nn.functional.gelu(images.flatten(1).float() / 255 @ WEIGHTS)


PROBE = make_probe(label_maker, IMAGES, VIEWS)


def off(gain: float) -> LabelMaker:
    return lambda images: label_maker(images) * gain


def fault(
    answers: LabelMaker,
    images: Tensor = IMAGES,
    *,
    seen: Tensor = IMAGES,
    probe: Probe = PROBE,
    precision: Precision = "fp32",
    device: torch.device = CPU,
) -> str | None:
    """Return what is wrong where a device gives these answers; a CPU beside a GPU gives the right ones.

    It sees views of `images`, and a GPU those of `seen`.
    """

    def view(asked: torch.device, epochs: Tensor, indices: Tensor) -> Tensor:
        shown = images if asked == CPU else seen
        return render(shown, draw(VIEWS, (8, 8), len(images), PROBE_SEED, epochs, indices))

    def answer(asked: torch.device) -> Tensor | None:
        return answer_probe(probe, VIEWS.size, partial(view, asked), answers if asked == device else label_maker)

    return probe_fault(
        probe,
        answer,
        device,
        precision,
    )


def test_honest_answers_pass() -> None:
    assert fault(lambda images: label_maker(images) + 1e-4) is None


def test_probe_covers_other_images_and_epochs() -> None:
    assert (len(PROBE.indices.unique()), len(PROBE.epochs.unique())) == (8, 8)
    assert int(PROBE.indices.max()) > 8


def test_probe_of_fewer_images_than_views_passes() -> None:
    assert fault(label_maker, IMAGES[:3], probe=make_probe(label_maker, IMAGES[:3], VIEWS)) is None


def test_views_are_answered_few_at_a_time() -> None:
    counts: list[int] = []

    def counted(images: Tensor) -> Tensor:
        counts.append(len(images))
        return label_maker(images)

    assert fault(counted, probe=make_probe(label_maker, IMAGES, VIEWS, 20)) is None
    assert (max(counts), sum(counts)) == (PART, 20)


def test_large_views_are_answered_one_at_a_time_and_none_after_one_that_differs() -> None:
    probe, counts = make_probe(label_maker, IMAGES, VIEWS, 5), []

    def view(epochs: Tensor, indices: Tensor) -> Tensor:
        counts.append(len(indices))
        seen = render(IMAGES, draw(VIEWS, (8, 8), len(IMAGES), PROBE_SEED, epochs, indices))
        return seen if len(counts) < 3 else seen ^ 1

    assert answer_probe(probe, 4096, view, label_maker) is None
    assert counts == [1, 1, 1]


def test_one_level_of_one_pixel_is_an_image_decoder_that_differs() -> None:
    other = IMAGES ^ (torch.arange(12) == int(PROBE.indices[3])).view(-1, 1, 1, 1).byte()
    assert (fault(label_maker, other) or "").startswith("the images decode to other pixels")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: label_maker(images).flip(1),
        lambda images: nn.functional.silu(images.flatten(1).float() / 255 @ WEIGHTS),
    ],
    ids=["weights", "activation"],
)
def test_other_logits_are_a_base_that_differs(wrong: LabelMaker) -> None:
    assert "computes otherwise, the file's projector is faulty, or this machine is" in (fault(wrong) or "")


def test_answers_that_are_right_on_the_cpu_alone_are_a_fault_of_the_device() -> None:
    found = fault(off(1.1), device=CUDA) or ""
    assert found.startswith("labels made on cuda:0 differ")
    assert "CPU do not: a numerical fault of cuda:0" in found


def test_views_that_are_right_on_the_cpu_alone_are_a_fault_of_the_device() -> None:
    found = fault(label_maker, seen=IMAGES.flip(0), device=CUDA) or ""
    assert found.startswith("views made on cuda:0 are not those made on the CPU: a numerical fault of cuda:0")
    assert "another release of Pillow" in (fault(label_maker, IMAGES.flip(0), seen=IMAGES.flip(0), device=CUDA) or "")


def test_device_may_be_off_by_what_its_precision_allows() -> None:
    assert fault(off(1.02), precision="bf16", device=CUDA) is None


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("bf16", True)])
def test_tolerance_is_that_of_the_precision(precision: Precision, passes: bool) -> None:
    found = fault(off(1.005), precision=precision)
    assert found is None if passes else "limit 1e-03" in (found or "")


def test_answer_that_is_not_finite_is_a_numerical_fault() -> None:
    assert "a numerical fault of this machine" in (fault(lambda images: label_maker(images) / 0) or "")


@pytest.mark.parametrize(("answers", "images"), [(label_maker, IMAGES.flip(0)), (off(1.1), IMAGES)])
def test_faults_are_one_line(answers: LabelMaker, images: Tensor) -> None:
    assert "\n" not in (fault(answers, images) or "\n")


TENSORS = vars(PROBE)
BROKEN = {
    "missing tensor": {name: TENSORS[name] for name in ("indices", "epochs", "digest")},
    "other tensor": TENSORS | {"extra": PROBE.logits},
    "other dtype": TENSORS | {"epochs": PROBE.epochs.int()},
    "other length": TENSORS | {"logits": PROBE.logits[1:]},
    "short digest": TENSORS | {"digest": PROBE.digest[:, 1:]},
    "too many views": vars(make_probe(label_maker, IMAGES, VIEWS, MAX_VIEWS + 1)),
    "no views": {name: tensor[:0] for name, tensor in TENSORS.items()},
    "image out of range": TENSORS | {"indices": PROBE.indices + 5},
    "image below zero": TENSORS | {"indices": PROBE.indices - 1},
    "epoch out of range": TENSORS | {"epochs": PROBE.epochs + (1 << 31) - 7},
    "epoch below zero": TENSORS | {"epochs": PROBE.epochs - 1},
    "logits not finite": TENSORS | {"logits": PROBE.logits / 0},
    "another number of classes": TENSORS | {"logits": PROBE.logits[:, 1:]},
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_probe_is_refused(what: str) -> None:
    with pytest.raises(FormatError, match=r"^x\.hello: section probe .* \[C9\]$"):
        Probe.read(BROKEN[what], len(IMAGES), 5, "x.hello")


def test_largest_probe_is_read() -> None:
    largest = replace(make_probe(label_maker, IMAGES, VIEWS, MAX_VIEWS), epochs=torch.full((MAX_VIEWS,), (1 << 31) - 1))
    assert len(Probe.read(vars(largest), len(IMAGES), 5, "x.hello").epochs) == MAX_VIEWS
