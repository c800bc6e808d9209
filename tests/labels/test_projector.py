"""The projector: zero-shot CLIP at the start, the same labels after storing, one clear error otherwise."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import open_clip
import pytest
import torch
from safetensors.torch import save

from hellods.errors import FormatError, LabelError
from hellods.labels.backbones import load_open_clip
from hellods.labels.config import Head, Precision, Quantization
from hellods.labels.models import quiet, resolve
from hellods.labels.precision import TOLERANCES
from hellods.labels.projector import Projector

CLASSES = ("apple", "bed", "bus", "rose", "tiger")


def create(quantization: Quantization = "fp16", template: str = "a photo of a {}", head: Head = "text") -> Projector:
    facts = {"template": template, "quantization": quantization, "head": head}
    return Projector.create("hello-tiny", CLASSES, ranks=(4, 2), seed=0, **facts)


@pytest.fixture
def projector() -> Projector:
    return create("fp16")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def fitted(projector: Projector) -> Projector:
    generator = torch.Generator().manual_seed(1)
    for value in projector.learned().values():
        value.data.add_(torch.randn(value.shape, generator=generator), alpha=0.05)
    return projector


def test_projector_starts_as_zero_shot_clip(projector: Projector, images: torch.Tensor) -> None:
    backbone = load_open_clip("hello-tiny")
    facts = backbone.preprocess
    pixels = torch.nn.functional.interpolate(
        images.float() / 255, size=(facts.side, facts.side), mode=facts.interpolation, antialias=True
    )
    pixels = (pixels - torch.tensor(facts.mean).view(3, 1, 1)) / torch.tensor(facts.std).view(3, 1, 1)
    features = torch.nn.functional.normalize(backbone.tower(pixels), dim=-1)
    text = backbone.embed([f"a photo of a {name}" for name in CLASSES])
    torch.testing.assert_close(projector(images), backbone.scale * features @ text.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_labels_are_made_in_the_configs_precision_whatever_the_caller_chose(
    images: torch.Tensor, precision: Precision
) -> None:
    made = Projector.create("hello-tiny", CLASSES, template="{}", ranks=(4, 2), seed=0, precision=precision)
    before = made.label(images)
    made.merge()
    plain = made.label(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made.label(images), plain)
    assert plain.dtype == torch.float32
    off = (plain - before).abs().max() / before.abs().max()
    assert (off < 1e-5) == (precision == "fp32")
    assert off < TOLERANCES[precision]


@pytest.mark.parametrize("quantization", get_args(Quantization))
def test_restored_projector_makes_the_labels_of_the_stored_one(
    images: torch.Tensor, quantization: Quantization
) -> None:
    projector = fitted(create(quantization))
    state = projector.state()
    projector.load(state)  # what is kept of the deltas
    restored = Projector.restore(projector.config, CLASSES, state)
    torch.testing.assert_close(restored(images), projector(images), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in restored.parameters())


@pytest.mark.parametrize("quantization", get_args(Quantization))
def test_storing_what_was_loaded_gives_the_same_bytes(quantization: Quantization) -> None:
    projector = fitted(create(quantization))
    projector.quantize()
    state = projector.state()
    projector.load(state)
    assert save(projector.state()) == save(state)


def test_fewer_bits_are_nearly_so_many_fewer_bytes_and_close_labels(images: torch.Tensor) -> None:
    makers = {name: fitted(create(name)) for name in get_args(Quantization)}
    states = {name: maker.state() for name, maker in makers.items()}
    size = {name: sum(value.nbytes for value in state.values()) for name, state in states.items()}
    assert size["int8"] < 0.55 * size["fp16"]
    assert size["int4"] < 0.30 * size["fp16"]
    expected, allowed = makers["fp16"](images), {"fp16": 0.005, "int8": 0.02, "int4": 0.3}
    for name, maker in makers.items():
        maker.load(states[name])
        assert (maker(images) - expected).std() < allowed[name] * expected.std(), name


def test_quantized_projector_answers_as_it_will_be_restored_and_can_be_fitted_on(images: torch.Tensor) -> None:
    projector = fitted(create("int4"))
    before = projector(images)
    projector.quantize()
    labels = projector(images)
    assert (labels - before).abs().max() > 1e-3
    torch.testing.assert_close(Projector.restore(projector.config, CLASSES, projector.state())(images), labels)
    labels.square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in projector.learned().values())


def test_only_deltas_bias_and_scale_are_stored(projector: Projector) -> None:
    names = projector.state().keys()
    assert {"bias", "scale"} < names
    assert all(name.endswith((".up", ".down", ".delta")) for name in names - {"bias", "scale"})
    packed = {name for name in create("int4").state() if not name.endswith(".scales")}
    assert packed == names


def test_projector_stays_in_eval_mode(projector: Projector) -> None:
    projector.train()
    assert not any(module.training for module in projector.modules())


def test_another_base_is_refused(projector: Projector) -> None:
    config = replace(projector.config, base_sha256="0" * 64)
    with pytest.raises(LabelError, match="made with 000000000000"):
        Projector.restore(config, CLASSES, projector.state())


@pytest.mark.parametrize("kind", ["given:", "hf-hub:stranger/", "local-dir:/tmp/"])
def test_a_file_cannot_choose_what_is_downloaded_or_read(projector: Projector, kind: str) -> None:
    config = replace(projector.config, base=f"{kind}somebody-s-model")
    with pytest.raises(LabelError, match=r"somebody-s-model.*`base="):
        Projector.restore(config, CLASSES, projector.state())
    with pytest.raises(LabelError, match="base model '' is unknown"):
        Projector.restore(config, CLASSES, projector.state(), base="")


def test_preprocessing_other_than_that_of_the_base_is_refused(projector: Projector) -> None:
    config = replace(projector.config, preprocess=replace(projector.config.preprocess, side=96))
    with pytest.raises(FormatError, match="preprocess"):
        Projector.restore(config, CLASSES, projector.state())


def test_template_is_text_and_nothing_more() -> None:
    made = Projector.create("hello-tiny", CLASSES, template="{x} {} {0!r}", ranks=(1, 1), seed=0)
    assert made.head.weight.shape[0] == len(CLASSES)


def test_a_base_given_by_the_user_is_matched_by_digest(projector: Projector) -> None:
    config = replace(projector.config, base="given:mine")
    restored = Projector.restore(config, CLASSES, projector.state(), base="hello-tiny")
    assert restored.config.base == "given:mine"


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "infinite", "wide"])
def test_tensors_that_do_not_fit_are_refused(projector: Projector, change: str) -> None:
    state = projector.state()
    if change == "missing":
        del state["bias"]
    elif change == "unknown":
        state["extra"] = torch.zeros(1)
    elif change == "shape":
        state["bias"] = torch.zeros(3)
    elif change == "infinite":
        state["bias"] = torch.full((5,), float("inf"))
    else:
        state["bias"] = torch.full((5,), 1e300, dtype=torch.float64)  # finite, but not in float32
    with pytest.raises(FormatError, match=r"projector: .*\[C7\]"):
        Projector.restore(projector.config, CLASSES, state)


DOWN = "tower.layer4.0.conv2.weight.down"


UNFIT: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "another rank than its up": (DOWN, lambda value: value[:2]),
    "no rank": (DOWN, lambda value: value[:0]),
    "too high a rank": (DOWN, lambda value: torch.cat([value, value])),
    "one dimension": (DOWN, lambda value: value.flatten()),
    "no dimension": (DOWN, lambda value: value.sum()),
    "codes that are floats": (DOWN, lambda value: value.float()),
    "infinite scales": (f"{DOWN}.scales", lambda value: value / 0),
    "too few scales": (f"{DOWN}.scales", lambda value: value[:, 1:]),
    "wide scales": (f"{DOWN}.scales", lambda value: value.float()),
}


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_packed_tensors_that_do_not_fit_are_refused(quantization: Quantization) -> None:
    projector = create(quantization)
    state = fitted(projector).state()
    for name, change in UNFIT.values():
        with pytest.raises(FormatError, match=rf"projector: tensor '{DOWN.removesuffix('down')}.*\[C7\]"):
            create(quantization).load(state | {name: change(state[name])})
    del state[f"{DOWN}.scales"]
    with pytest.raises(FormatError, match="scales' is missing"):
        projector.load(state)


def test_number_of_classes_must_be_that_of_the_descriptions(projector: Projector) -> None:
    with pytest.raises(FormatError, match="5 descriptions for 2 classes"):
        Projector.restore(projector.config, ("a", "b"), projector.state())


@pytest.mark.parametrize(
    ("base", "words"),
    [("RN50", "MODEL/TAG"), ("RN50/none", "RN50/openai"), ("nothing/at-all", "MODEL/TAG")],
)
def test_unknown_base_names_what_there_is(base: str, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        resolve(base)


def test_missing_local_base_says_which_files_to_bring() -> None:
    with pytest.raises(LabelError, match=r"open_clip_config\.json and open_clip_model\.safetensors"):
        load_open_clip("local-dir:/nowhere")


def test_loading_a_base_silences_open_clip_alone(caplog: pytest.LogCaptureFixture) -> None:
    own, hub = logging.getLogger("mine"), logging.getLogger("huggingface_hub.file_download")
    with quiet():
        own.warning("of the user's program")
        hub.warning("of the hub")
        with pytest.raises(RuntimeError, match="none"):
            open_clip.create_model("none")  # which logs an error, too
    hub.warning("later")
    assert [record.message for record in caplog.records if record.name in ("mine", "root")] == ["of the user's program"]
    assert not hub.isEnabledFor(logging.DEBUG)
    assert hub.isEnabledFor(logging.WARNING)


def test_loading_a_base_leaves_logging_as_it_was() -> None:
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), root.manager.disable
    load_open_clip("hello-tiny")
    assert (list(root.handlers), root.manager.disable) == (handlers, disabled)


def test_loading_a_base_leaves_the_random_numbers_of_the_caller() -> None:
    before = torch.get_rng_state()
    load_open_clip("hello-tiny")
    load_open_clip("hello-tiny", "prototypes")
    assert torch.equal(torch.get_rng_state(), before)


def test_more_texts_than_a_reader_embeds_are_refused(projector: Projector) -> None:
    many = tuple(map(str, range(1025)))
    with pytest.raises(ValueError, match=r"template has 128 parts, .* 131,072 texts"):
        replace(projector.config, template="|".join(["{}"] * 128), descriptions=many)
    replace(projector.config, template="|".join(["{}"] * 128), descriptions=many[:1024])


def test_templates_are_averaged(images: torch.Tensor) -> None:
    parts = [create(template=template).head.weight.detach() for template in ("a {}", "a photo of a {}")]
    mean = torch.nn.functional.normalize(parts[0] + parts[1], dim=1)
    torch.testing.assert_close(create(template="a {}|a photo of a {}").head.weight.detach(), mean)


def test_every_template_needs_a_place_for_the_class(projector: Projector) -> None:
    with pytest.raises(ValueError, match="needs one"):
        replace(projector.config, template="a {}|the")


def test_head_of_prototypes_needs_no_text_and_is_stored(images: torch.Tensor) -> None:
    projector = create(head="prototypes")
    means = torch.nn.functional.normalize(torch.randn(5, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    projector.set_prototypes(means)
    expected = projector.scale * projector.features(images) @ means.T
    torch.testing.assert_close(projector(images), expected, rtol=1e-2, atol=1e-2)
    state = fitted(projector).state()
    projector.load(state)
    other_words = replace(projector.config, descriptions=("1", "2", "3", "4", "5"))
    torch.testing.assert_close(Projector.restore(other_words, CLASSES, state)(images), projector(images))


@pytest.mark.parametrize(
    "value", [None, torch.zeros(5, 64).half(), torch.full((5, 128), torch.nan).half(), torch.zeros(5, 128)]
)
def test_prototypes_that_do_not_fit_are_refused(value: torch.Tensor | None) -> None:
    projector = create(head="prototypes")
    state = projector.state() | {"prototypes": value}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    message = r"'prototypes' is missing, or not \(5, 128\) finite float16 \[C7\]"
    with pytest.raises(FormatError, match=message):
        projector.load(state)
    with pytest.raises(FormatError, match=message):
        Projector.restore(projector.config, CLASSES, state)


def test_a_head_of_prototypes_gets_no_more_room_than_the_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(head="prototypes")
    names, zeros = tuple(map(str, range(100_000))), torch.zeros

    def small(*size: Any, **options: Any) -> torch.Tensor:
        made = zeros(*size, **options)
        assert made.numel() < 1 << 20
        return made

    monkeypatch.setattr(torch, "zeros", small)
    with pytest.raises(FormatError, match=r"or not \(100000, 128\) finite float16"):
        Projector.restore(replace(made.config, descriptions=names), names, made.state())


def test_texts_that_take_long_to_embed_are_refused(projector: Projector) -> None:
    with pytest.raises(ValueError, match=r"text 'aaa.* of a class has 257 characters: 256 are read"):
        replace(projector.config, descriptions=("b", "a" * 257))


def test_paths_stay_out_of_the_archive() -> None:
    assert resolve("local-dir:/home/me/secret/mine/")[0] == "given:mine"
    assert resolve("hf-hub:somebody/model")[0] == "given:model"


def test_openai_weights_get_their_own_activation() -> None:
    assert resolve("RN50/openai")[1]["force_quick_gelu"] is True
    assert resolve("ViT-B-32/laion2b_s34b_b79k")[1]["force_quick_gelu"] is False
