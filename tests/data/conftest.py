"""A small archive of real digits, with a real projector over a tiny base model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import nn

from hellods.format.archive import write
from hellods.format.codecs import encode
from hellods.format.header import Header, Images
from hellods.format.streams import image_sections
from hellods.labels.backbones import BACKBONES, Backbone
from hellods.labels.config import Head, Preprocess
from hellods.labels.projector import Projector
from hellods.probe import make_probe
from hellods.record import to_json
from hellods.views.rule import Views

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNT, SIDE = 20, 16
VIEWS = Views(size=12, mix="cutmix")


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    """uint8 (20, 3, 16, 16): two images of each digit."""
    digits = torch.tensor(load_digits().images[:COUNT] * 15.9).byte()  # they come in the order of their classes
    return digits[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1).contiguous()


def tiny(base: str, head: Head) -> Backbone:
    """A base model of a few thousand weights, the same under every name."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 32))
    facts = Preprocess(side=12, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Backbone(
        name=base,
        tower=tower.eval().requires_grad_(False),
        embed=embed,
        scale=20.0,
        preprocess=facts,
        sha256="0" * 64,
        quick_gelu=False,
    )


def embed(texts: Sequence[str]) -> torch.Tensor:
    seeds = [torch.Generator().manual_seed(sum(text.encode())) for text in texts]
    return nn.functional.normalize(torch.stack([torch.randn(32, generator=seed) for seed in seeds]), dim=1)


@pytest.fixture(scope="module")
def projector() -> Iterator[Projector]:
    """A projector whose deltas are not zero, as after fitting; while it lives, every archive's base is tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "open_clip", tiny)
        projector = Projector.create("hello-tiny", CLASSES, template="a photo of {}", ranks=(2, 2), seed=0)
        generator = torch.Generator().manual_seed(0)
        stored = projector.state().items()
        noisy = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in stored}
        projector.load({name: noisy[name].to(value.dtype) for name, value in stored})
        yield projector


@pytest.fixture(scope="module")
def make(pixels: torch.Tensor, projector: Projector) -> Callable[..., Path]:
    """Write an archive to a path; keywords replace parts of its header, `sections` replaces sections."""
    streams = [encode(image.permute(1, 2, 0).numpy(), "png", None) for image in pixels]
    images = Images(count=COUNT, codec="png", height=SIDE, width=SIDE, mean=(0.3, 0.3, 0.4), std=(0.2, 0.25, 0.2))
    header = Header(
        name="digits",
        created_by="tests",
        source={},
        classes=CLASSES,
        images=images,
        views=to_json(VIEWS),
        projector=to_json(projector.config),
        teacher={},
        recipe={},
        metrics={},
    )
    parts = image_sections(streams) | {
        "targets": load_digits().target[:COUNT].astype("<u4").tobytes(),
        "projector": save(projector.state()),
        "probe": save(vars(make_probe(projector.label, pixels, VIEWS))),
    }

    def make(path: Path, *, sections: dict[str, bytes] | None = None, **changes: Any) -> Path:
        changed = {name: value for name, value in (parts | (sections or {})).items() if value}
        write(path, replace(header, **changes), changed, overwrite=True)
        return path

    return make


@pytest.fixture(scope="module")
def archive(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("archive") / "digits.hello")
