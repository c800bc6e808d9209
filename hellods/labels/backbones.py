"""BACKBONES: public CLIP models by name; their image tower, text embeddings, preprocessing and digest."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import QuickGELU
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hellods.errors import FormatError, LabelError
from hellods.labels.config import Head, Preprocess, ProjectorConfig
from hellods.labels.hub import cached, fetch

ASSETS: Final = Path(__file__).parent.parent / "assets"
CONFIG: Final = "open_clip_config.json"
WEIGHTS: Final = "open_clip_model.safetensors"
IMAGE: Final = "visual."  # what the names of an image tower's tensors begin with
SCALE: Final = "logit_scale"
WITHOUT_TEXTS: Final = "build with --head prototypes (head='prototypes' in Python), which begins at images"
LEAST_TEXT: Final = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP: `tower` maps float (B, 3, S, S) to (B, D); `embed` maps texts to normalized (K, D)."""

    name: str  # as the archive states it: never a path
    tower: nn.Module
    embed: Callable[[Sequence[str]], Tensor] | None  # None: there is no text tower
    scale: float  # what cosines are multiplied with to become logits
    preprocess: Preprocess
    sha256: str
    swap: Callable[[], None] = lambda: None  # GELU for QuickGELU and the reverse, in tower and texts: to find a fault
    texts: Tensor | None = None  # (K, D), of the archive's own classes, where it holds them in place of a text tower


def load_open_clip(base: str, head: Head = "text") -> Backbone:
    """Return an open_clip model on the CPU, in float32 and eval mode.

    Args:
        base: `hello-tiny` (in this package), `MODEL/TAG` with one of open_clip's own pretrained tags (downloaded on
            first use), `hf-hub:OWNER/NAME`, or `local-dir:FOLDER` (open_clip_config.json and safetensors weights).
        head: `prototypes` takes the image tower alone, and needs no text tower to be there.

    Raises:
        LabelError: no such model, its weights cannot be had, or it has no text tower for a head of texts.
    """
    name, options = resolve(base)
    try:
        with quiet():
            facts, images = describe(options)
            if head == "text":
                check_texts(base, facts)
            model = whole(options) if head == "text" else image_tower(options, facts)
    except LabelError:
        raise
    except Exception as cause:  # open_clip raises whatever its loaders and the network raise
        advice = mend(options) if isinstance(cause, SafetensorError) else remedy(base)
        raise LabelError(f"base model {base!r} cannot be loaded: {first_line(cause)}. {advice}") from cause
    model.eval().requires_grad_(False)

    def embed(texts: Sequence[str]) -> Tensor:
        tokenizer = tokenizer_of(base, options)
        with torch.no_grad():
            return torch.cat([model.encode_text(tokenizer(list(part)), normalize=True) for part in _chunks(texts)])

    reader, used = (embed, model) if head == "text" else (None, model.visual)
    return Backbone(
        name,
        model.visual,
        reader,
        model.logit_scale.exp().item(),
        preprocessing(base, model.visual.image_size, images),
        digest(used.state_dict()),
        lambda: swap_activations(model),
    )


BACKBONES: dict[str, Callable[[str, Head], Backbone]] = {"open_clip": load_open_clip}


def load_base(config: ProjectorConfig, base: str | None) -> Backbone:
    """Return the base model of an archive that does not hold it, or in place of the one that it holds.

    Raises:
        LabelError: it is missing, or another one.
        FormatError: the archive says that it takes other images than it does.
    """
    if base is None and ":" in config.base:
        hint = config.base.removeprefix("given:")
        raise LabelError(
            f"the labels need the base model {hint!a} (SHA-256 {config.base_sha256[:12]}…), which is not in the "
            f"file and not one of open_clip's own: give it as --base local-dir:FOLDER (base='local-dir:FOLDER')"
        )
    backbone = BACKBONES[config.architecture](base or config.base, config.head)
    if backbone.sha256 != config.base_sha256:
        raise LabelError(
            f"base model {base or config.base!a} has SHA-256 {backbone.sha256[:12]}…, but the archive was made "
            f"with {config.base_sha256[:12]}…: its labels would be wrong. {remedy(config.base)}"
        )
    if config.preprocess != backbone.preprocess:
        raise FormatError(f"projector: preprocess is not that of the base model, {backbone.preprocess} [C7]")
    return backbone


def resolve(base: str) -> tuple[str, dict[str, Any]]:
    """Return the name that an archive states for `base`, and open_clip's arguments.

    Raises:
        LabelError: neither a name of open_clip's nor one of the prefixes.
    """
    if base == "hello-tiny":
        return base, {"model_name": f"local-dir:{ASSETS / base}"}
    prefix, colon, rest = base.partition(":")
    if colon and prefix in ("hf-hub", "local-dir"):
        # A path or a stranger's repository is the user's to name, so the archive keeps only a hint.
        return f"given:{rest.rstrip('/').rpartition('/')[2]}", {"model_name": base}
    model, _, tag = base.partition("/")
    facts = open_clip.get_pretrained_cfg(model, tag)
    if not facts:
        known = [f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)]
        examples = ", ".join(known[:3] or ["RN50/openai", "ViT-B-32/openai"])
        raise LabelError(
            f"base model {base!r} is unknown: expected hello-tiny, MODEL/TAG of open_clip (such as {examples}), "
            f"hf-hub:OWNER/NAME or local-dir:FOLDER"
        )
    # OpenAI's and some other weights were trained with QuickGELU, which open_clip leaves to the caller.
    return base, {"model_name": model, "pretrained": tag, "force_quick_gelu": bool(facts.get("quick_gelu"))}


def describe(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return open_clip's config of a model, for its arguments, and how the model wants its images."""
    kind, _, place = options["model_name"].partition(":")
    if place:
        file = Path(place) / CONFIG if kind == "local-dir" else cached(place, CONFIG)
        content = json.loads(file.read_text(encoding="utf-8"))
        facts, own = content["model_cfg"], content.get("preprocess_cfg", {})
    else:
        facts = open_clip.get_model_config(options["model_name"])
        own = open_clip.get_pretrained_cfg(options["model_name"], options["pretrained"])
    return facts, merge_preprocess_dict(PreprocessCfg(), own)


def weights(options: Mapping[str, Any]) -> Path:
    """Return the file of a model's weights, for open_clip's arguments; what is not in the cache is downloaded."""
    kind, _, place = options["model_name"].partition(":")
    if kind == "local-dir":
        return Path(place) / WEIGHTS
    if kind == "hf-hub":
        return fetch(f"{place}/")
    return fetch(open_clip.get_pretrained_cfg(options["model_name"], options["pretrained"])["hf_hub"])


def check_texts(base: str, facts: Mapping[str, Any]) -> None:
    """Raise LabelError where a model of that config cannot embed texts, before its weights are downloaded."""
    text = facts.get("text_cfg")
    if not text:
        raise LabelError(f"base model {base!r} has no text tower: give another --base, or {WITHOUT_TEXTS}")
    foreign = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if foreign and find_spec("transformers") is None:
        raise LabelError(
            f"base model {base!r} reads texts with the package transformers, which is not installed: "
            f"pip install transformers, or {WITHOUT_TEXTS}"
        )


def tokenizer_of(base: str, options: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    try:
        with quiet():
            made: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(options["model_name"])
    except Exception as cause:  # whatever transformers and the network raise
        problem = f"base model {base!r}: its tokenizer cannot be loaded: {first_line(cause)}"
        raise LabelError(f"{problem}. Without it, {WITHOUT_TEXTS}") from cause
    return made


def preprocessing(base: str, size: int | Sequence[int], images: Mapping[str, Any]) -> Preprocess:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise LabelError(f"base model {base!r} takes images of {size}, and views are square: choose another")
    return Preprocess(
        side=sides.pop(), mean=tuple(images["mean"]), std=tuple(images["std"]), interpolation=images["interpolation"]
    )


def whole(options: Mapping[str, Any]) -> open_clip.CLIP:
    """Return a model with its weights, for open_clip's arguments."""
    own = {"pretrained": str(weights(options))} if "pretrained" in options else {}
    return open_clip.create_model(**{**options, **own}, require_pretrained=True)


def image_tower(options: Mapping[str, Any], facts: Mapping[str, Any]) -> open_clip.CLIP:
    """Return the same with the least text tower that there is: the model's own is not read, and need not be there."""
    vision = facts["vision_cfg"] | {"timm_model_pretrained": False}
    quick_gelu = options.get("force_quick_gelu") or facts.get("quick_gelu", False)
    model = open_clip.CLIP(facts["embed_dim"], vision, LEAST_TEXT, quick_gelu)
    with safe_open(weights(options), "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys() if name.startswith((IMAGE, SCALE))}  # noqa: SIM118
    if SCALE in held:
        model.logit_scale.data.fill_(held.pop(SCALE).item())
    if not held:
        raise ValueError(f"none of its weights has a name that begins with {IMAGE!r}")
    model.visual.load_state_dict({name.removeprefix(IMAGE): value for name, value in held.items()})
    return model


def remedy(base: str) -> str:
    """Return one sentence: which file to bring when `base` cannot be had, and how."""
    if base.startswith("local-dir:"):
        return f"The folder must hold {CONFIG} and {WEIGHTS}"
    return (
        f"Without a network, bring its {CONFIG} and {WEIGHTS} in one folder "
        "and name it as --base local-dir:FOLDER (base='local-dir:FOLDER' in Python)"
    )


def mend(options: Mapping[str, Any]) -> str:
    """Return one sentence: which file of weights is damaged, and what to do."""
    file = weights(options)
    if options["model_name"].startswith("local-dir:"):
        return f"{file} is damaged: bring it again"
    return f"{file.resolve()} is damaged: delete it, and it is downloaded again"  # the cache links to its files


def swap_activations(model: nn.Module) -> None:
    """Exchange GELU and QuickGELU, in place."""
    for owner in list(model.modules()):
        for name, child in owner.named_children():
            if isinstance(child, (QuickGELU, nn.GELU)):
                setattr(owner, name, nn.GELU() if isinstance(child, QuickGELU) else QuickGELU())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the float tensors that labels come from: name, shape and float32 bytes, sorted by name."""
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        # What CoCa writes captions with has no part in labels.
        if tensor.is_floating_point() and not name.startswith("text_decoder."):
            state.update(f"{name} {list(tensor.shape)}\n".encode())
            state.update(tensor.detach().float().contiguous().numpy().tobytes())
    return state.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's warnings, which `options` settles, and the hub's retries off the screen.

    open_clip logs to the root logger, which would give the caller's program a handler that it never asked for.
    """
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


def _chunks(texts: Sequence[str], size: int = 256) -> list[Sequence[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def first_line(cause: Exception) -> str:
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
