"""A witness of what students are shown, and a student, for loops that are not ours."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hellods import Archive
from hellods.format.archive import write
from hellods.format.codecs import encode
from hellods.format.header import Header, Images
from hellods.format.streams import image_sections
from hellods.labels.config import ProjectorConfig
from hellods.labels.projector import Projector
from hellods.probe import make_probe
from hellods.record import from_json, to_json
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

COUNT, SIDE, EPOCHS = 20, 32, 8  # the images of the archive, and the epochs that a witness knows
CLASSES = ("apple", "bicycle", "bottle", "chair", "clock", "dolphin", "forest", "keyboard", "lamp", "whale")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty digits under names that hello-tiny tells apart; any process can make the labels."""
    data, views = load_digits(), Views(size=SIDE, scale=(0.3, 1.0), mix="cutmix")
    digits = torch.tensor(data.images[:COUNT] * 15.9).byte()[:, None].expand(-1, 3, -1, -1)
    pixels = digits.repeat_interleave(4, 2).repeat_interleave(4, 3)
    projector = Projector.create("hello-tiny", CLASSES, template="a photo of a {}", ranks=(2, 2), seed=0)
    generator = torch.Generator().manual_seed(0)
    stored = projector.state().items()
    noisy = {name: value + 0.02 * torch.randn(value.shape, generator=generator) for name, value in stored}
    projector.load({name: noisy[name].to(value.dtype) for name, value in stored})
    facts = Images(count=COUNT, codec="png", height=SIDE, width=SIDE, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    header = Header(
        name="digits",
        created_by="tests",
        source={},
        classes=CLASSES,
        images=facts,
        views=to_json(views),
        projector=to_json(projector.config),
        teacher={},
        recipe={},
        metrics={},
    )
    sections = image_sections([encode(image.permute(1, 2, 0).numpy(), "png", None) for image in pixels]) | {
        "targets": data.target[:COUNT].astype("<u4").tobytes(),
        "projector": save(projector.state()),
        "probe": save(vars(make_probe(projector.label, pixels, views))),
    }
    path = tmp_path_factory.mktemp("archive") / "digits.hello"
    write(path, header, sections)
    return path


class Witness:
    """Tells from the pixels alone which view a student was shown, and holds its label to the label maker's answer.

    It reads the archive by itself: nothing here comes from a HelloDataset.
    """

    def __init__(self, path: Path) -> None:
        with Archive.open(path) as opened:
            header, state = opened.header, load(opened.read("projector"))
            pixels = torch.from_numpy(opened.pixels()).permute(0, 3, 1, 2).contiguous()
        config = from_json(ProjectorConfig, header.projector, "projector")
        projector, rule = Projector.restore(config, header.classes, state), from_json(Views, header.views, "views")
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (header.images.mean, header.images.std))
        shown, labels = [], []
        for epoch in range(EPOCHS):
            views = render(pixels, draw(rule, (SIDE, SIDE), COUNT, 0, epoch, torch.arange(COUNT)))
            shown.append(views)
            with torch.no_grad():
                labels.append(projector(views).softmax(1))
        pixels, self.labels = torch.stack(shown), torch.stack(labels)  # (E, N, 3, S, S), (E, N, K)
        self.images = (pixels.float() / 255 - self.mean) / self.std
        self.views = {
            pixels[epoch, index].numpy().tobytes(): (epoch, index) for epoch in range(EPOCHS) for index in range(COUNT)
        }
        self.seen: list[tuple[int, int]] = []  # epoch and index, in the order shown

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Look at a batch as the loss sees it."""
        pixels = ((images.detach() * self.std + self.mean) * 255).round().to(torch.uint8)
        found = [self.views[image.numpy().tobytes()] for image in pixels]
        epochs, indices = (torch.tensor(part) for part in zip(*found, strict=True))
        assert type(labels) is Tensor, "labels that the loss sees are values"
        assert (labels - self.labels[epochs, indices]).abs().max() < 1e-5
        self.seen += found

    def saw_all_images_in_epochs(self, number: int) -> bool:
        """Whether each image was shown once in each epoch, one epoch after the other, in the views of that epoch."""
        return [sorted(self.seen[start : start + COUNT]) for start in range(0, len(self.seen), COUNT)] == [
            [(epoch, index) for index in range(COUNT)] for epoch in range(number)
        ]

    def loss(self, student: nn.Module) -> float:
        """Return the loss on the views of the first epoch."""
        with torch.no_grad():
            return cross_entropy(student(self.images[0]), self.labels[0]).item()


@pytest.fixture(scope="session")
def _witness(archive: Path) -> Witness:
    return Witness(archive)


@pytest.fixture
def witness(_witness: Witness) -> Witness:
    _witness.seen = []
    return _witness


def make_student() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, len(CLASSES))
        return nn.Sequential(*layers)


@pytest.fixture
def student() -> nn.Module:
    return make_student()


@pytest.fixture
def learns(witness: Witness, student: nn.Module) -> Callable[[], None]:
    """Return what asserts that the student saw two epochs, all labels exact, and that its loss went down."""
    before = witness.loss(student)

    def learns() -> None:
        assert witness.saw_all_images_in_epochs(2)
        assert witness.loss(student) < 0.9 * before

    return learns
