import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hellods import HelloDataset
from hellods.data.probe import PROBE_SEED, check_probe, make_probe
from hellods.errors import FormatError, HelloError, LabelError
from hellods.labels import LabelMaker
from hellods.labels.config import Precision
from hellods.labels.models import ASSETS
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
    other: LabelMaker | None = None,
) -> None:
    def view(epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        return render(images, draw(VIEWS, (8, 8), len(images), PROBE_SEED, epochs, indices))

    restored = None if other is None else lambda: other
    check_probe(probe, label_maker, view, len(images), "x.hello", precision=precision, other=restored)


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


def check_on_a_gpu(gain: float, precision: Precision = "fp32", other: LabelMaker | None = None) -> None:
    """Check answers that a GPU would give multiplied by `gain`, and a CPU as they should be."""
    seen: list[torch.device] = []

    def view(epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        seen.append(device)
        return render(IMAGES, draw(VIEWS, (8, 8), len(IMAGES), PROBE_SEED, epochs, indices))

    def answers(images: Tensor) -> Tensor:
        return label_maker(images) * (gain if seen[-1].type == "cuda" else 1)

    restored, cuda = None if other is None else lambda: other, torch.device("cuda:0")
    check_probe(PROBE, answers, view, len(IMAGES), "x.hello", device=cuda, precision=precision, other=restored)


def test_answers_that_are_right_on_the_cpu_alone_are_a_fault_of_the_device() -> None:
    with pytest.raises(LabelError, match=r"made on cuda:0 differ .* CPU do not: a numerical fault of cuda:0"):
        check_on_a_gpu(1.1)


def test_device_may_be_off_by_what_its_precision_allows_where_the_base_has_no_activation_to_swap() -> None:
    check_on_a_gpu(1.02, "bf16", label_maker)


def test_wrong_activation_is_named_where_the_other_one_is_right(digits_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ASSETS / "hello-convnet", folder)
    assert len(HelloDataset(digits_archive, base=f"local-dir:{folder}", labels="logits").batch([0])[1].cpu()) == 1
    facts = json.loads((folder / "open_clip_config.json").read_text())
    facts["model_cfg"]["quick_gelu"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    with pytest.raises(LabelError, match="if GELU and QuickGELU were exchanged"):
        HelloDataset(digits_archive, base=f"local-dir:{folder}").batch([0])[1].cpu()


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("bf16", True)])
def test_tolerance_is_that_of_the_precision(precision: Precision, passes: bool) -> None:
    with nullcontext() if passes else pytest.raises(LabelError, match="limit 1e-03"):
        check(PROBE, lambda images: label_maker(images) * 1.005, IMAGES, precision)


@pytest.mark.parametrize(("nearer", "passes"), [(1.0, False), (1.004, False), (1.015, True), (1.03, True)])
def test_within_the_tolerance_the_other_activation_may_not_be_twice_as_near(nearer: float, passes: bool) -> None:
    def off(factor: float) -> LabelMaker:
        return lambda images: label_maker(images) * factor

    with nullcontext() if passes else pytest.raises(LabelError, match="if GELU and QuickGELU were exchanged"):
        check(PROBE, off(1.02), IMAGES, "bf16", off(nearer))


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
