"""A base model is read as far as labels need it: a head of prototypes takes the image tower alone."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from hellods.errors import LabelError
from hellods.labels.backbones import base_digest, load_base, load_open_clip
from hellods.labels.config import OWN, Head
from hellods.labels.models import ASSETS, CONFIG, WEIGHTS, resolve
from hellods.labels.projector import Projector

HELLO_TINY = "ee7ca4eec86631d319d5c53695d24fdf4964ab8229b15d596e305bfcd5951ce0"  # as the first archives state it


@pytest.fixture
def own(small_base: Path, tmp_path: Path) -> Path:
    """A copy of the small base, to change."""
    return Path(shutil.copytree(small_base, tmp_path / "own"))


def configure(base: Path, **facts: Any) -> None:
    """Change what a base's config says of the model."""
    content = json.loads((base / CONFIG).read_text())
    content["model_cfg"] |= facts
    (base / CONFIG).write_text(json.dumps(content))


def test_digest_of_a_base_with_texts_stays_what_archives_state() -> None:
    assert load_open_clip("hello-tiny").sha256 == HELLO_TINY


@pytest.mark.parametrize(
    "base", ["local-dir:/home/ann/clip/", "local-dir://ann/clip", r"local-dir:C:\Users\Ann\clip", "hf-hub:ann/clip"]
)
def test_archive_states_no_path_of_the_user(base: str) -> None:
    assert resolve(base)[0] == "given:clip"


@pytest.mark.parametrize("kind", ["ResNet", "transformer with QuickGELU"])
def test_image_tower_alone_answers_as_in_the_whole_model(kind: str, small_base: Path) -> None:
    base = "hello-tiny" if kind == "ResNet" else f"local-dir:{small_base}"
    whole, alone = load_open_clip(base), load_open_clip(base, "prototypes")
    side = whole.preprocess.side
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alone.tower(images), whole.tower(images))
    assert (alone.name, alone.scale, alone.preprocess) == (whole.name, whole.scale, whole.preprocess)
    assert alone.embed is None


def test_digest_for_prototypes_is_of_the_image_tower_alone(small_base: Path, image_base: Path) -> None:
    whole, alone = (load_open_clip(f"local-dir:{base}", "prototypes") for base in (small_base, image_base))
    assert whole.sha256 == alone.sha256 == base_digest(alone.tower.state_dict())
    assert alone.sha256 != load_open_clip(f"local-dir:{small_base}").sha256


@pytest.mark.parametrize("head", ["text", "prototypes"])
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_base_that_computes_with_the_other_activation_says_what_to_set(quick_gelu: bool, head: Head, own: Path) -> None:
    base = f"local-dir:{own}"
    configure(own, quick_gelu=quick_gelu)
    config = Projector.create(base, ("a",), template="{}", ranks=(1, 1), seed=0, head=head).config
    assert config.quick_gelu == load_base(config, base).quick_gelu == quick_gelu
    configure(own, quick_gelu=not quick_gelu)
    here, there = ("GELU", "QuickGELU") if quick_gelu else ("QuickGELU", "GELU")
    words = rf"'local-dir:.*own' computes with {here}, but the archive was made with {there}: .*"
    with pytest.raises(LabelError, match=words + f'Set "quick_gelu": {str(quick_gelu).lower()} in the model_cfg'):
        load_base(config, base)


@pytest.mark.parametrize("head", ["text", "prototypes"])
@pytest.mark.parametrize("facts", [{}, {"custom_text": True}], ids=["CLIP", "CustomTextCLIP"])
def test_activation_that_a_tag_forces_is_stated(
    facts: dict[str, Any], head: Head, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(own, quick_gelu=False, **facts)
    assert not load_open_clip(f"local-dir:{own}", head).quick_gelu
    forced = {"model_name": f"local-dir:{own}", "force_quick_gelu": True}
    monkeypatch.setattr("hellods.labels.backbones.resolve", lambda base: (base, forced))
    assert load_open_clip("ViT-B-32/openai", head).quick_gelu


@pytest.mark.parametrize("name", OWN)  # a ResNet, a network of timm's
def test_activation_is_that_of_texts_alone_where_the_image_tower_has_no_choice(name: str, tmp_path: Path) -> None:
    own = Path(shutil.copytree(ASSETS / name, tmp_path / "own"))
    configure(own, quick_gelu=True)
    heads: tuple[Head, ...] = ("text", "prototypes")
    assert [load_open_clip(f"local-dir:{own}", head).quick_gelu for head in heads] == [True, False]
    assert [load_open_clip(name, head).quick_gelu for head in heads] == [False, False]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"std": [0.0, 0.0, 0.0]}, "mean and std need three channels"),
        ({"mean": [0.5]}, "mean and std need three channels"),
        ({"mean": ["0.5", "a", "b"]}, "could not convert"),
        ({"std": [None, 0.2, 0.2]}, "float"),
        ({"interpolation": "random"}, "interpolation is 'random', expected one of bicubic, bilinear"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused_by_the_name_of_the_base(
    facts: dict[str, Any], said: str, own: Path
) -> None:
    content = json.loads((own / CONFIG).read_text())
    content["preprocess_cfg"] = content.get("preprocess_cfg", {}) | facts
    (own / CONFIG).write_text(json.dumps(content))
    with pytest.raises(LabelError, match=f"base model 'local-dir:.*own': {said}.*mend its {CONFIG}"):
        load_open_clip(f"local-dir:{own}")


def test_one_number_is_the_mean_of_all_channels(own: Path) -> None:
    content = json.loads((own / CONFIG).read_text())
    content["preprocess_cfg"] = {"mean": 0.5, "std": 0.25}
    (own / CONFIG).write_text(json.dumps(content))
    found = load_open_clip(f"local-dir:{own}").preprocess
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_other_base_in_place_of_one_of_the_package_is_refused_with_what_to_leave_out() -> None:
    config = Projector.create("hello-convnet", ("cat", "dog"), template="a {}", ranks=(1, 1), seed=0).config
    with pytest.raises(LabelError, match="Leave `base` out: hello-convnet comes with hellods"):
        load_base(config, "hello-tiny")


def test_texts_of_a_base_without_a_text_tower_are_refused_with_a_way_out(image_base: Path) -> None:
    with pytest.raises(LabelError, match=r"^base model 'local-dir:.*' has no text tower.*`head='prototypes'`"):
        load_open_clip(f"local-dir:{image_base}")


def test_text_tower_that_cannot_be_made_here_is_not_missed(image_base: Path) -> None:
    configure(image_base, text_cfg={"hf_model_name": "nobody/nothing", "hf_tokenizer_name": "nobody/nothing"})
    load_open_clip(f"local-dir:{image_base}", "prototypes")


@pytest.mark.parametrize("fault", ["names", "shapes"])
def test_weights_that_are_no_image_tower_are_refused(fault: str, image_base: Path) -> None:
    held = load_file(image_base / WEIGHTS)
    changed = {
        "names": {name.removeprefix("visual."): value for name, value in held.items()},
        "shapes": {name: value[..., :1].contiguous() for name, value in held.items()},
    }
    save_file(changed[fault], image_base / WEIGHTS)
    with pytest.raises(LabelError, match=r"cannot be loaded: .*\. The folder must hold"):
        load_open_clip(f"local-dir:{image_base}", "prototypes")


TEXT = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
FOREIGN: dict[str, dict[str, Any]] = {
    "tokenizer, as SigLIP's": TEXT | {"hf_tokenizer_name": "nobody/nothing"},
    "text tower, as RoBERTa's": {"hf_model_name": "nobody/nothing", "hf_tokenizer_name": "nobody/nothing"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_texts_that_need_transformers_say_so_where_it_is_missing(
    what: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(own, text_cfg=FOREIGN[what])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LabelError, match=r"'local-dir:.*pip install transformers.*`head='prototypes'`") as error:
        load_open_clip(f"local-dir:{own}")
    assert "The folder must hold" not in str(error.value)
    load_open_clip(f"local-dir:{own}", "prototypes")


def test_tokenizer_is_made_at_the_first_text_and_one_that_cannot_be_had_is_named(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> None:
        raise OSError(f"{name}: no network")

    monkeypatch.setattr(open_clip, "get_tokenizer", unreachable)
    backbone = load_open_clip(f"local-dir:{own}")
    assert backbone.embed is not None
    with pytest.raises(LabelError, match=r"'local-dir:.*: its tokenizer cannot be loaded: .*no network.*prototypes"):
        backbone.embed(["a"])
