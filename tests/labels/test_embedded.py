"""A base model that an archive holds comes back bit for bit; from hostile facts or tensors comes an error of ours."""

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from math import inf, nan
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hellods.errors import DigestError, FormatError, LabelError, UnsupportedError
from hellods.knobs import BOUNDS
from hellods.labels.backbones import BACKBONES, base_digest, load_open_clip
from hellods.labels.config import Head, Preprocess, ProjectorConfig, Tower
from hellods.labels.embedded import build, restore, stored
from hellods.labels.models import ASSETS
from hellods.labels.projector import Projector
from hellods.record import from_json, to_json

from .test_towers import MORE_TOWERS, TOWERS, answer, tower

CLASSES = ("apple", "bed", "rose")
EMBEDDABLE = [name for name in TOWERS if "queries and keys" not in name]


def described(facts: dict[str, Any], **changes: Any) -> Tower:
    """Return the facts of a tower that test_towers makes."""
    vision = asdict(open_clip.CLIPVisionCfg(**facts))
    layers = vision["layers"]
    value = {field.name: vision[field.name] for field in fields(Tower) if field.name in vision}
    value |= {"embed_dim": 32, "layers": (layers,) if isinstance(layers, int) else tuple(layers)}
    return Tower(**{"sha256": "0" * 64} | value | changes)


def config(made: Tower, head: Head = "text") -> ProjectorConfig:
    return ProjectorConfig(
        base="given:mine",
        base_sha256="0" * 64,
        quick_gelu=False,
        preprocess=Preprocess(side=made.image_size, mean=(0.5,) * 3, std=(0.5,) * 3),
        template="a {}",
        descriptions=CLASSES,
        head=head,
        encoder_rank=1,
        head_rank=1,
        tower=made,
    )


def check(facts: dict[str, Any]) -> None:
    network = tower(facts)
    texts = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    made = described(facts, sha256=base_digest(network.state_dict()))
    again = from_json(Tower, to_json(made), "tower")
    assert again == made
    backbone = restore(config(again), again, stored(network.state_dict(), texts))
    assert backbone.texts is not None
    assert torch.equal(backbone.texts, texts)
    images = torch.randn(1, 3, made.image_size, made.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(answer(backbone.tower, images), answer(network, images))
    assert not any(module.training for module in backbone.tower.modules())
    assert not any(parameter.requires_grad for parameter in backbone.tower.parameters())


@pytest.mark.parametrize("name", EMBEDDABLE)
def test_tower_comes_back_bit_for_bit(name: str) -> None:
    check(TOWERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_TOWERS)
def test_larger_tower_comes_back_bit_for_bit(name: str) -> None:
    check(MORE_TOWERS[name] | ({"timm_pool": "map"} if name == "SigLIP" else {}))


@given(st.lists(st.floats(width=32), min_size=1, max_size=4), st.booleans())
def test_numbers_come_back_bit_for_bit_and_in_half_the_bytes_where_they_can(
    numbers: list[float], rounded: bool
) -> None:
    value = torch.tensor(numbers)
    value = value.half().float() if rounded else value
    kept = stored({"a": value}, None)["tower.a"]
    if not value.isnan().any():
        assert kept.float().view(torch.int32).tolist() == value.view(torch.int32).tolist()
        with np.errstate(over="ignore"):
            halves = value.numpy().astype(np.float16)
        assert (kept.dtype == torch.float16) == bool((halves.astype(np.float32) == value.numpy()).all())


def test_shipped_base_takes_two_bytes_a_weight() -> None:
    network = load_open_clip("hello-tiny").tower
    numbers = sum(value.numel() for value in network.state_dict().values() if value.is_floating_point())
    assert sum(value.nbytes for value in stored(network.state_dict(), None).values()) == 2 * numbers


def projector(head: Head = "text") -> Projector:
    """A fitted projector on hello-tiny, and the facts of its tower in its config."""
    made = Projector.create("hello-tiny", CLASSES, template="a {}", ranks=(4, 2), seed=0, head=head)
    generator = torch.Generator().manual_seed(1)
    if head == "prototypes":
        made.set_prototypes(torch.nn.functional.normalize(torch.randn(3, 128, generator=generator), dim=1))
    for value in made.learned().values():
        value.data.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
    base = load_open_clip("hello-tiny")
    facts = open_clip.get_model_config(f"local-dir:{ASSETS / 'hello-tiny'}")
    made.config = replace(
        made.config, tower=described(facts["vision_cfg"], embed_dim=128, sha256=base_digest(base.tower.state_dict()))
    )
    return made


@pytest.mark.parametrize("head", ["text", "prototypes"])
def test_labels_are_those_made_with_the_base_outside_bit_for_bit(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    made = projector(head)
    assert ("texts" in made.base()) == (head == "text")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outside = Projector.restore(made.config, CLASSES, made.state(), base="hello-tiny")
    monkeypatch.delitem(BACKBONES, "open_clip")
    inside = Projector.restore(made.config, CLASSES, made.state(), embedded=made.base())
    with torch.no_grad():
        assert torch.equal(inside(images), outside(images))


def test_base_of_the_users_own_takes_the_place_of_the_one_held_and_is_matched_by_digest() -> None:
    made = projector()
    assert Projector.restore(made.config, CLASSES, made.state(), embedded={}, base="hello-tiny").config is made.config
    changed = replace(made.config, base_sha256="0" * 64)
    with pytest.raises(LabelError, match="made with 000000000000"):
        Projector.restore(changed, CLASSES, made.state(), embedded=made.base(), base="hello-tiny")


def test_restoring_leaves_the_callers_random_numbers_alone() -> None:
    network = tower(TOWERS["ViT"])
    made = described(TOWERS["ViT"], sha256=base_digest(network.state_dict()))
    before = torch.get_rng_state()
    restore(config(made, "prototypes"), made, stored(network.state_dict(), None))
    assert torch.equal(torch.get_rng_state(), before)


FACTS = TOWERS["ModifiedResNet"]
NETWORK = tower(FACTS)
MADE = described(FACTS, sha256=base_digest(NETWORK.state_dict()))
TENSORS = stored(NETWORK.state_dict(), torch.zeros(3, 32))
ONE = "tower.bn1.bias"

UNFIT: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "nothing": lambda held: {},
    "a tensor less": lambda held: {name: value for name, value in held.items() if name != ONE},
    "a tensor more": lambda held: held | {"tower.more": torch.zeros(1)},
    "a name without its prefix": lambda held: held | {"bn1.bias": held[ONE]},
    "another shape": lambda held: held | {ONE: held[ONE][:-1]},
    "no dimension": lambda held: held | {ONE: held[ONE].sum()},
    "more numbers than fit anywhere": lambda held: held | {ONE: torch.zeros(0, 2**40, 2**20)},
    "integers": lambda held: held | {ONE: held[ONE].int()},
    "64 bits": lambda held: held | {ONE: held[ONE].double()},
    "another format of 16 bits": lambda held: held | {ONE: held[ONE].bfloat16()},
    "infinite": lambda held: held | {ONE: held[ONE] * inf},
    "not a number": lambda held: held | {ONE: held[ONE] * nan},
    "another weight": lambda held: held | {ONE: held[ONE] + 1},
    "another order of weights": lambda held: held | {"tower.bn1.weight": held[ONE], ONE: held["tower.bn1.weight"]},
    "no texts": lambda held: {name: value for name, value in held.items() if name != "texts"},
    "a text too many": lambda held: held | {"texts": torch.zeros(4, 32)},
    "short texts": lambda held: held | {"texts": torch.zeros(3, 31)},
    "flat texts": lambda held: held | {"texts": torch.zeros(96)},
}


def test_tensors_that_fit_are_accepted() -> None:
    restore(config(MADE), MADE, TENSORS)


@pytest.mark.parametrize("what", UNFIT)
def test_tensors_that_do_not_fit_are_refused_in_one_line(what: str) -> None:
    with pytest.raises(FormatError, match=r"^backbone: .* \[C8\]$") as error:
        restore(config(MADE), MADE, UNFIT[what](TENSORS))
    assert isinstance(error.value, DigestError) == ("weight" in what)


def test_texts_beside_prototypes_are_refused() -> None:
    with pytest.raises(FormatError, match=r"'texts' is \(3, 32\), expected none \[C8\]"):
        restore(config(MADE, "prototypes"), MADE, TENSORS)


@pytest.mark.parametrize(
    "name", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:/tmp", "../x", "resnet18.a1_in1k", "", "a" * 65]
)
def test_a_network_is_a_name_and_never_an_address(name: str) -> None:
    with pytest.raises(ValueError, match="timm_model_name"):
        replace(MADE, timm_model_name=name)


def test_network_that_timm_does_not_know_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match=r"'resnet_of_tomorrow': install a newer one \[C8\]"):
        build(replace(MADE, timm_model_name="resnet_of_tomorrow"), False, 1)


BOUNDED = {field.name: field.metadata[BOUNDS] for field in fields(Tower) if BOUNDS in field.metadata}


def test_every_number_of_a_tower_has_bounds() -> None:
    numbers = {field.name for field in fields(Tower) if field.type in (int, float, int | None)}
    assert numbers == BOUNDED.keys()


@pytest.mark.parametrize("name", BOUNDED)
def test_fact_out_of_bounds_is_named(name: str) -> None:
    for value in (BOUNDED[name][0] - 1, BOUNDED[name][1] + 1):
        with pytest.raises(ValueError, match=name):
            replace(MADE, **{name: value})


@pytest.mark.parametrize("layers", [(), (1, 1), (0,), (1, 1, 1, -1), (129,), (64, 64, 1, 1)])
def test_layers_are_few_of_one_or_four_stages(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="layers"):
        replace(MADE, layers=layers)


def test_patches_are_not_too_many() -> None:
    with pytest.raises(ValueError, match="patches of 4 in 1024 px"):
        replace(MADE, image_size=1024, patch_size=4)


def test_tower_takes_the_images_that_views_are_resized_to() -> None:
    with pytest.raises(ValueError, match=r"image_size is 64, preprocess\.side 32"):
        replace(config(MADE), preprocess=Preprocess(side=32, mean=(0.5,) * 3, std=(0.5,) * 3))


def test_any_facts_build_a_tower_or_end_in_an_error_of_ours() -> None:
    generator = random.Random(0)
    values: list[Any] = [
        None,
        True,
        0,
        1,
        3,
        7,
        64,
        8192,
        "1",
        "0.3",
        "tok",
        "avg",
        "map",
        "",
        "none",
        [1],
        [1, 1, 1, 1],
    ]
    names = ["mobilenetv2_050", "vit_tiny_patch16_224", "fastvit_mci0", "resnet18", "a"]
    small = [name for name in EMBEDDABLE if TOWERS[name].get("timm_model_name") in (None, "mobilenetv2_050")]
    built = 0
    for _ in range(600):
        value = to_json(described(TOWERS[generator.choice(small)]))
        for key in generator.sample(sorted(value), generator.randint(1, 3)):
            value[key] = generator.choice(names if key == "timm_model_name" else values)
        try:
            build(from_json(Tower, value, "tower"), False, 1_500_000)
        except (FormatError, UnsupportedError):
            continue
        built += 1
    assert 30 < built < 570


LIMITED = """
import pathlib, resource, sys
from hellods.errors import FormatError
from hellods.labels.config import Tower
from hellods.labels.embedded import build

used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for giant in eval(sys.argv[1]):
    try:
        build(giant, False, 1000)
    except FormatError as error:
        print(error)
"""
GIANTS: list[dict[str, Any]] = [
    {"width": 8192},
    {"width": 512, "layers": (128,)},
    {"width": 4096, "embed_dim": 1 << 16},
    {"width": 2048, "layers": (3, 4, 6, 3), "patch_size": None},
    {"embed_dim": 1 << 16, "attentional_pool": True, "attn_pooler_queries": 1 << 12, "attn_pooler_heads": 1},
    {"timm_model_name": "vit_pe_core_gigantic_patch14_448"},
]


@pytest.mark.parametrize(
    ("tower", "facts", "refused"),
    [
        ("ViT", {"width": 1024, "head_width": 1, "image_size": 1024, "patch_size": 16}, True),
        ("ViT", {"width": 1024, "head_width": 64, "image_size": 64, "patch_size": 1}, True),
        ("ViT", {"width": 256, "head_width": 64, "image_size": 32, "patch_size": 2}, False),
        ("ViT", {"width": 1664, "head_width": 104, "image_size": 448, "patch_size": 14}, False),  # ViT-bigG's, and more
        ("ViT", {"attentional_pool": True, "attn_pooler_queries": 4096, "attn_pooler_heads": 1024}, True),
        ("ViT", {"attentional_pool": True, "attn_pooler_queries": 256, "attn_pooler_heads": 8}, False),
        ("ModifiedResNet", {"width": 64, "head_width": 1, "image_size": 1024}, True),
        ("ModifiedResNet", {"width": 128, "head_width": 64, "image_size": 448}, False),  # RN50x64's
    ],
)
def test_attention_of_a_tower_has_a_limit(tower: str, facts: dict[str, Any], refused: bool) -> None:
    with pytest.raises(ValueError, match="its attention takes") if refused else nullcontext():
        described(TOWERS[tower], **facts)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its memory by RLIMIT_AS")
def test_facts_of_a_giant_cost_no_memory() -> None:
    giants = repr([described(TOWERS["ViT"], **giant) for giant in GIANTS])
    run = subprocess.run([sys.executable, "-c", LIMITED, giants], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(GIANTS)
    assert all(line.endswith("it has more weights than the file [C8]") for line in lines), run.stdout
