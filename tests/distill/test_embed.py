"""A build puts its base model into the archive, or says before any work why it cannot."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from hellods.distill.build import build
from hellods.distill.embed import describe, embed
from hellods.distill.recipe import Inputs, Recipe
from hellods.errors import OptionError
from hellods.format import wire
from hellods.format.archive import Archive
from hellods.labels.backbones import base_digest, load_open_clip
from hellods.labels.config import OWN
from hellods.labels.projector import Projector
from hellods.record import from_json
from hellods.teachers import training


def create(base: str) -> Projector:
    return Projector.create(base, ("a", "b"), template="{}", ranks=(1, 1), seed=0)


@pytest.fixture
def own(small_base: Path, tmp_path: Path) -> Path:
    """A copy of the small base, to change."""
    return Path(shutil.copytree(small_base, tmp_path / "own"))


def configure(folder: Path, **vision: Any) -> None:
    """Change the config of a base's image tower."""
    file = folder / "open_clip_config.json"
    facts = json.loads(file.read_text())
    facts["model_cfg"]["vision_cfg"] |= vision
    file.write_text(json.dumps(facts))


def test_section_holds_the_tower_of_the_base_and_little_else(embedded_archive: Path, small_base: Path) -> None:
    with Archive.open(embedded_archive) as archive:
        tensors, projector = load(archive.read("backbone")), archive.header.projector
    tower = load_open_clip(f"local-dir:{small_base}").tower.state_dict()
    held = {name.removeprefix("tower."): value.float() for name, value in tensors.items() if name != "texts"}
    assert base_digest(held) == base_digest(tower) == (projector or {})["tower"]["sha256"]
    assert tensors["texts"].shape == (10, 24)
    assert not any("token" in name for name in tensors)


def test_same_inputs_and_the_recipe_of_the_file_give_the_same_bytes(
    embedded_archive: Path, few_digits: Path, small_base: Path, tmp_path: Path
) -> None:
    with Archive.open(embedded_archive) as archive:
        header = archive.header
        parts = {name: archive.read(name) for name in ("images", "projector", "probe")}
    recipe = from_json(Recipe, header.recipe, "recipe")
    inputs = Inputs(data=str(few_digits), base=f"local-dir:{small_base}", allow_weak_teacher=True)
    again = build(inputs, recipe, out=tmp_path / "again.hello")
    assert again.path.read_bytes() == embedded_archive.read_bytes()
    without = build(inputs, replace(recipe, embed_base=False), out=tmp_path / "without.hello")
    with Archive.open(without.path) as archive:
        assert {name: archive.read(name) for name in parts} == parts
        assert "backbone" not in [section.name for section in archive.header.sections]
        assert archive.header.projector == {**(header.projector or {}), "tower": None}


def test_base_that_is_too_large_is_refused_before_any_work_with_its_size(
    few_digits: Path, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: object, **knobs: object) -> None:
        raise AssertionError("refuse before the teacher learns")

    monkeypatch.setattr(training, "train", late)
    base = f"local-dir:{small_base}"
    size = sum(value.nbytes for value in create(base).base().values())
    for limit in (1000, size):  # of which the tensors' names take some
        monkeypatch.setattr(wire, "MAX_BACKBONE", limit)
        with pytest.raises(
            OptionError, match=rf"base model 'small' has [\d,]+ bytes .* at most {limit:,} are embedded"
        ):
            build(Inputs(data=str(few_digits), base=base), Recipe(embed_base=True), out=tmp_path / "x.hello")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "vision",
    [{"qk_norm": True}, {"norm_kwargs": {"eps": 1e-3}}, {"attentional_pool": "parallel"}, {"mlp_ratio": 100}],
)
def test_tower_that_an_archive_has_no_words_for_is_refused_by_the_key(own: Path, vision: dict[str, Any]) -> None:
    made = create(f"local-dir:{own}")
    configure(own, **vision)
    with pytest.raises(OptionError, match=f"^base model 'own' cannot be embedded.*{next(iter(vision))}"):
        describe(made, f"local-dir:{own}")


def test_what_only_training_looks_at_is_left_out(own: Path) -> None:
    made = create(f"local-dir:{own}")
    before = describe(made, f"local-dir:{own}")
    configure(own, patch_dropout=0.5, timm_drop=0.1)
    assert describe(made, f"local-dir:{own}") == before


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({"width": 16}, "expected"),
        ({"layers": 1}, "expected none"),
        ({"layers": 3}, "is missing"),
        ({"pool_type": "avg"}, "answers otherwise"),
    ],
)
def test_config_that_is_not_of_the_weights_is_found_out(own: Path, vision: dict[str, Any], words: str) -> None:
    made = create(f"local-dir:{own}")
    configure(own, **vision)
    with pytest.raises(OptionError, match=f"^base model 'own' cannot be embedded: .*{words}"):
        embed(made, f"local-dir:{own}")
    assert made.config.tower is None


@pytest.mark.parametrize("base", [*OWN, "mobilenetv2-in1k"])
def test_bases_of_other_kinds_are_embedded(base: str, request: pytest.FixtureRequest) -> None:
    shared = request.getfixturevalue("shared") if base not in OWN else None
    spec = base if shared is None else f"local-dir:{shared / 'data' / 'clip' / base}"
    made = create(spec)
    embed(made, spec)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inside = Projector.restore(made.config, ("a", "b"), made.state(), embedded=made.base())
    with torch.no_grad():
        assert torch.equal(inside(images), Projector.restore(made.config, ("a", "b"), made.state(), base=spec)(images))
