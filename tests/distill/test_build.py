"""A whole build, small: what it writes, that it repeats itself, that it stops before it harms."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hellods import HelloDataset
from hellods.distill.build import LATER, Report, build
from hellods.distill.measure import measure
from hellods.distill.recipe import Inputs, Recipe
from hellods.errors import HelloError, SourceError
from hellods.format import wire
from hellods.format.archive import Archive
from hellods.labels import LabelMaker
from hellods.labels.config import Precision
from hellods.progress import silent
from hellods.sources.source import Pixels, open_source, squares
from hellods.teachers import training
from hellods.views.rule import Views

CLASSES = ("blue", "green", "red")
TEACHER = """
import torch

class Brightest(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        return self.gain * images.mean((2, 3)).flip(1)

def brightest():
    return Brightest()
"""
RECIPE = Recipe(images_per_class=2, fit_views=512, fit_batch_size=32, candidates=10, assistant="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes, by which channel is brightest, and a teacher that knows it."""
    root = tmp_path_factory.mktemp("real")
    random = np.random.default_rng(0)
    for channel, name in enumerate(reversed(CLASSES)):
        (root / "colors" / name).mkdir(parents=True)
        for number in range(25):
            pixels = random.integers(0, 100, (18, 18, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / "colors" / name / f"{number}.png")
    (root / "teacher.py").write_text(TEACHER)
    return root


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Inputs:
    return Inputs(data=str(folder / "colors"), teacher=f"{folder / 'teacher.py'}:brightest", license="CC0-1.0")


@pytest.fixture(scope="module")
def report(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build(inputs, RECIPE, out=tmp_path_factory.mktemp("made") / "colors.hello")


def test_archive_passes_every_check_and_makes_labels(report: Report) -> None:
    with Archive.open(report.path) as archive:
        archive.verify()
        assert archive.content_id == report.content_id
    images, labels = HelloDataset(report.path).batch(range(6))  # the first label answers the probe
    assert images.shape == (6, 3, 18, 18)
    torch.testing.assert_close(labels.sum(1), torch.ones(6))


def test_archive_says_how_it_was_made(report: Report, folder: Path) -> None:
    with Archive.open(report.path) as archive:
        header = archive.header
    assert header.classes == CLASSES
    assert (header.name, header.license) == ("colors", "CC0-1.0")
    assert header.source["images"] == 60
    assert header.teacher["architecture"] == "brightest"
    assert header.teacher["held_out_accuracy"] == "1"
    assert header.recipe["side"] == 18
    assert header.recipe["fit_views"] == 512
    assert str(folder) not in repr(header)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_labels_of_another_precision_are_made_and_checked_in_it(
    precision: Precision, inputs: Inputs, tmp_path: Path
) -> None:
    build(inputs, replace(RECIPE, label_precision=precision), out=tmp_path / "x.hello")
    with Archive.open(tmp_path / "x.hello") as archive:
        assert archive.header.projector["precision"] == precision
    _, labels = HelloDataset(tmp_path / "x.hello").batch([0, 1])  # compared with the probe
    assert torch.allclose(labels.sum(1), torch.ones(2))


def test_projector_has_learned_the_teacher(report: Report) -> None:
    with Archive.open(report.path) as archive:
        metrics = archive.header.metrics
    assert float(metrics["agreement_on_held_out_images"]) > 0.9
    assert float(metrics["projector_held_out_accuracy"]) > 0.9


def test_same_inputs_and_seed_give_the_same_bytes(report: Report, inputs: Inputs, tmp_path: Path) -> None:
    again = build(inputs, RECIPE, out=tmp_path / "again.hello")
    assert again.path.read_bytes() == report.path.read_bytes()


def test_default_device_of_torch_is_no_matter(report: Report, inputs: Inputs, tmp_path: Path) -> None:
    with torch.device("meta"):
        again = build(inputs, RECIPE, out=tmp_path / "again.hello")
    assert again.path.read_bytes() == report.path.read_bytes()


@pytest.mark.parametrize("knobs", [{}, {"head": "prototypes"}, {"quantization": "fp16"}], ids=str)
def test_archive_made_on_a_device_passes_its_probe_on_it_and_on_the_cpu(
    accelerator: str, knobs: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, assistant="convnet3", teacher_epochs=20, **knobs)
    made = build(replace(inputs, device=accelerator), recipe, out=tmp_path / "x.hello")
    there, here = (HelloDataset(made.path).batch(range(6), where)[1] for where in (accelerator, "cpu"))
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=0)


def test_another_seed_gives_other_images(report: Report, inputs: Inputs, tmp_path: Path) -> None:
    other = build(inputs, replace(RECIPE, seed=1, fit_views=0), out=tmp_path / "other.hello")
    with Archive.open(report.path) as first, Archive.open(other.path) as second:
        assert first.read("images") != second.read("images")


@pytest.mark.parametrize("codec", ["jpeg", "avif", "png"])
def test_labels_belong_to_the_images_as_a_reader_decodes_them(inputs: Inputs, codec: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, codec=codec, quality=None if codec == "png" else 60, fit_views=0)
    made = build(inputs, recipe, out=tmp_path / "x.hello")
    HelloDataset(made.path).batch([0])  # the probe holds digests of views


def test_large_file_is_measured_on_some_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellods.distill.measure.SAMPLE", 6)
    seen: list[Tensor] = []

    def brightness(images: Tensor) -> Tensor:
        seen.append(images)
        return images.float().mean((2, 3))

    images = torch.arange(9, dtype=torch.uint8).view(9, 1, 1, 1).expand(9, 3, 4, 4).contiguous()
    held_out = Pixels("held out", CLASSES, [0] * 9, images)
    _, shown = measure(brightness, [brightness], held_out, images, Views(size=4), silent)  # type: ignore[arg-type, list-item]
    assert sorted(torch.cat(seen[-1:])[:, 0, 0, 0].tolist()) == [0, 1, 3, 4, 6, 7]
    assert shown == 9


def test_accuracy_and_agreement_are_of_all_held_out_images_though_as_many_of_each_class_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hellods.sources.sampling.SAMPLE", 3)
    monkeypatch.setattr("hellods.sources.sampling.PER_CLASS", 1)
    held_out = Pixels("held out", CLASSES, [0] * 8 + [1, 2], torch.zeros(10, 3, 4, 4, dtype=torch.uint8))

    def blue(images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0]).expand(len(images), 3)

    found, shown = measure(blue, [blue], held_out, held_out.images, Views(size=4), silent)  # type: ignore[list-item]
    assert (found["projector_held_out_accuracy"], found["agreement_on_held_out_images"], shown) == (0.8, 1.0, 3)


def test_kl_and_agreement_on_views_are_each_mentor_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hellods.distill.measure.SAMPLE", 3)
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    held_out = Pixels("held out", CLASSES, [0], images)

    def sure(*shares: float) -> LabelMaker:
        return lambda seen: torch.tensor(shares).log().expand(len(seen), 3)

    mentors = [sure(0.25, 0.5, 0.25), sure(0.5, 0.25, 0.25)]
    found, _ = measure(sure(0.25, 0.25, 0.5), mentors, held_out, images, Views(size=4), silent)  # type: ignore[arg-type]
    kl = round(0.25 * math.log(2), 4)
    assert found == {
        "projector_held_out_accuracy": 0.0,
        "agreement_on_held_out_images": 0.0,
        "agreement_on_views": 0.0,
        "kl_on_views": kl,
        "agreement_with_assistant_on_views": 0.0,
        "kl_from_assistant_on_views": kl,
    }


def test_real_images_can_be_taken_as_they_are(inputs: Inputs, tmp_path: Path) -> None:
    recipe = replace(RECIPE, initializer="real", candidates=Recipe.candidates, codec="png")
    path = build(inputs, recipe, out=tmp_path / "x.hello").path
    with Archive.open(path) as archive:
        found = torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2)
    source, _ = open_source(inputs.data, seed=0)
    real = squares(source, torch.arange(len(source)), 18)
    assert {bytes(image.contiguous().numpy()) for image in found} <= {bytes(image.numpy()) for image in real}


def test_projector_that_learned_nothing_is_said(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(inputs, replace(RECIPE, fit_views=0), out=tmp_path / "x.hello")
    assert "colors: the projector is right on" in caplog.text
    assert "near chance (33.3%); its labels may teach nothing: try more `fit_views`" in caplog.text


def test_existing_file_is_kept_before_any_work(report: Report, tmp_path: Path) -> None:
    with pytest.raises(HelloError, match="`overwrite=True`"):
        build(Inputs(data="nowhere"), RECIPE, out=report.path)


def test_interrupted_build_leaves_nothing(inputs: Inputs, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "Images" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(inputs, RECIPE, out=tmp_path / "x.hello", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_every_stage_is_reported_from_nothing_to_its_end(inputs: Inputs, tmp_path: Path) -> None:
    last: dict[str, tuple[int, int]] = {}
    first: dict[str, int] = {}

    def watch(stage: str, done: int, total: int) -> None:
        first.setdefault(stage, done)
        last[stage] = done, total

    build(inputs, replace(RECIPE, fit_views=64), out=tmp_path / "x.hello", progress=watch)
    assert {"Projector", "Images", "Encode", "Check"} <= last.keys()
    assert set(first.values()) == {0}
    assert all(done == total for done, total in last.values())


def test_too_few_images_are_said_before_the_teacher_is_made(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="20 training images"):
        build(
            replace(inputs, teacher="no/such/file.py:f"), replace(RECIPE, images_per_class=21), out=tmp_path / "x.hello"
        )


def test_teacher_of_another_class_order_is_refused(folder: Path, inputs: Inputs, tmp_path: Path) -> None:
    swapped = folder / "swapped.py"
    swapped.write_text(TEACHER.replace(".flip(1)", ""))  # red, green, blue
    with pytest.raises(SourceError, match=r"blue.*red|red.*blue"):
        build(replace(inputs, teacher=f"{swapped}:brightest"), RECIPE, out=tmp_path / "x.hello")
    assert not list(tmp_path.iterdir())


def test_assistant_learns_from_the_teacher_and_the_projector_from_it(inputs: Inputs, tmp_path: Path) -> None:
    recipe = replace(RECIPE, assistant="convnet3", teacher_epochs=20, fit_views=768)
    made = build(inputs, recipe, out=tmp_path / "x.hello")
    assert "assistant" in made.seconds
    with Archive.open(made.path) as archive:
        header = archive.header
    assert (header.recipe["assistant"], header.recipe["fit_on"]) == ("convnet3", "own")
    assert header.recipe["teacher_stages"] == [19, 20]
    assert (header.teacher["architecture"], header.teacher["assistant"]["architecture"]) == ("brightest", "convnet3")
    assert header.teacher["assistant"]["networks"] == 2
    assert float(header.teacher["assistant"]["held_out_accuracy"]) > 0.9
    assert float(header.metrics["agreement_with_assistant_on_views"]) > 0.6  # chance: 0.33
    assert 0 < float(header.metrics["kl_from_assistant_on_views"]) < 0.5  # a uniform answer: about 1


def test_assistant_that_learned_nothing_is_refused(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *args, **options: None)
    recipe = replace(RECIPE, assistant="resnet18", teacher_epochs=1)
    with pytest.raises(SourceError, match="the assistant is right on"):
        build(inputs, recipe, out=tmp_path / "x.hello")


@pytest.mark.slow
def test_cifar10_labels_come_near_the_teacher(shared: Path, cifar10: Path, tmp_path: Path) -> None:
    weights = shared / "data" / "teachers"
    inputs = Inputs(
        data=str(cifar10),
        teacher=f"{weights / 'cifar_resnet.py'}:cifar10_resnet20",
        teacher_weights=str(weights / "cifar10_resnet20.safetensors"),
    )
    made = build(inputs, Recipe(images_per_class=1, fit_views=20_000, assistant="none"), out=tmp_path / "c10.hello")
    with Archive.open(made.path) as archive:
        assert float(archive.header.teacher["held_out_accuracy"]) > 0.9
        assert float(archive.header.metrics["agreement_on_held_out_images"]) > 0.55


def test_names_that_no_header_holds_are_refused_before_anything_is_learned(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_HEADER", LATER + 1000)
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(
        SourceError, match=r"the names of 3 classes take too much of a file's header, .* texts that describe them"
    ):
        build(inputs, RECIPE, out=tmp_path / "x.hello")
