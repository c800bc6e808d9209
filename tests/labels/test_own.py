"""The base models that the package ships: small, in open_clip's own form, and as good as is said of them."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hellods.labels.backbones import load_open_clip
from hellods.labels.config import OWN
from hellods.labels.models import ASSETS, WEIGHTS
from hellods.labels.projector import Projector
from hellods.nets import create

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def test_open_clip_opens_hello_tiny_without_this_package() -> None:
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / 'hello-tiny'}")
    assert sum(parameter.numel() for parameter in model.visual.parameters()) <= 1_500_000


def test_tower_of_hello_convnet_is_what_students_are() -> None:
    tower, student = load_open_clip("hello-convnet").tower, create("convnet3", classes=128, side=32)
    shapes = [[value.shape for value in network.state_dict().values()] for network in (tower, student)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("base", OWN)
def test_weights_are_half_precision_and_tokens_never_seen_are_zero(base: str) -> None:
    weights = load_file(ASSETS / base / WEIGHTS)
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}
    seen = weights["token_embedding.weight"].any(1)
    known, unknown = open_clip.SimpleTokenizer(context_length=16)(["a photo of a maple tree", "a photo of algebra"])
    assert seen[known].all()
    assert not seen[unknown].all()
    assert seen.sum() < 300


def test_both_read_texts_alike() -> None:
    tiny, convnet = (load_open_clip(base).embed for base in OWN)
    assert tiny
    assert convnet
    assert torch.equal(tiny(["a photo of a cat"]), convnet(["a photo of a cat"]))


@pytest.mark.parametrize(("base", "least"), [("hello-tiny", 0.45), ("hello-convnet", 0.4)])
def test_text_alone_names_photographs_as_often_as_was_measured(base: str, least: float, shared: Path) -> None:
    folder = shared / "data" / "cifar100"
    index = json.loads((folder / "index.json").read_text())
    rows, columns = index["grid_rows_cols"]
    part = index["splits"]["test"]
    sheet = np.asarray(Image.open(folder / part["files"][0]).convert("RGB"))
    tiles = torch.from_numpy(sheet.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    names = [name.replace("_", " ") for name in index["classes"]]
    projector = Projector.create(base, names, template="a photo of a {}", ranks=(1, 1), seed=0)
    with torch.no_grad():
        found = torch.cat([projector(batch).argmax(1) for batch in torch.split(tiles, 250)])
    measured = json.loads((RESULTS / f"{base.replace('-', '_')}.json").read_text())["cifar100_test_top1_from_text"]
    hits = (found == torch.tensor(part["labels"][: len(tiles)])).float()
    # Four standard deviations of the mean of so many images.
    assert abs(hits.mean().item() - measured) < 4 * (measured * (1 - measured) / len(tiles)) ** 0.5
    assert measured > least
