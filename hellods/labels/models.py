"""open_clip's models: from a base's name to a config, a file of weights, and modules."""

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import open_clip
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import safe_open
from torch import Tensor

import hellods.labels.towers  # noqa: F401 — known to timm from here on
from hellods.errors import LabelError
from hellods.labels.config import OWN
from hellods.labels.hub import cached, fetch

ASSETS: Final = Path(__file__).parent.parent / "assets"
CONFIG: Final = "open_clip_config.json"
WEIGHTS: Final = "open_clip_model.safetensors"
IMAGE: Final = "visual."  # what the names of an image tower's tensors begin with
SCALE: Final = "logit_scale"
LEAST_TEXT: Final = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
WITHOUT_TEXTS: Final = "build with `head='prototypes'`, which begins at images"


def resolve(base: str) -> tuple[str, dict[str, Any]]:
    """Return the name that an archive states for `base`, and open_clip's arguments.

    Raises:
        LabelError: neither a name of open_clip's nor one of the prefixes.
    """
    if base in OWN:
        return base, {"model_name": f"local-dir:{ASSETS / base}"}
    prefix, colon, rest = base.partition(":")
    if colon and prefix in ("hf-hub", "local-dir"):
        # A path or a stranger's repository is the user's to name, so the archive keeps only a hint.
        hint = re.split(r"[\\/]", rest.rstrip("\\/"))[-1]
        return f"given:{hint}", {"model_name": base}
    model, _, tag = base.partition("/")
    facts = open_clip.get_pretrained_cfg(model, tag)
    if not facts:
        known = [f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)]
        examples = ", ".join(known[:3] or ["RN50/openai", "ViT-B-32/openai"])
        raise LabelError(
            f"base model {base!r} is unknown: expected {' or '.join(OWN)}, MODEL/TAG of open_clip (such as "
            f"{examples}), hf-hub:OWNER/NAME or local-dir:FOLDER"
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
    if kind == "hf-hub":  # those that belong to its config, in one folder with it
        return cached(place, WEIGHTS, revision=cached(place, CONFIG).parent.name)
    return fetch(open_clip.get_pretrained_cfg(options["model_name"], options["pretrained"])["hf_hub"])


def check_texts(base: str, facts: Mapping[str, Any]) -> None:
    """Raise LabelError where a model of that config cannot embed texts, before its weights are downloaded."""
    text = facts.get("text_cfg")
    if not text:
        raise LabelError(f"base model {base!r} has no text tower: give another `base`, or {WITHOUT_TEXTS}")
    foreign = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if foreign and find_spec("transformers") is None:
        raise LabelError(
            f"base model {base!r} reads texts with the package transformers, which is not installed: "
            f"pip install transformers, or {WITHOUT_TEXTS}"
        )


def tokenizer_of(base: str, options: Mapping[str, Any], facts: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    """Return what turns texts into tokens, for a model's name, open_clip's arguments, and its config.

    Raises:
        LabelError: transformers, which some models need, cannot bring it.
    """
    try:
        with quiet():
            name = options["model_name"] if facts["text_cfg"].get("hf_tokenizer_name") else _at_hand(options)
            made: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(name)
    except Exception as cause:  # whatever transformers and the network raise
        problem = f"base model {base!r}: its tokenizer cannot be loaded: {first_line(cause)}"
        raise LabelError(f"{problem}. Without it, {WITHOUT_TEXTS}") from cause
    return made


def whole(options: Mapping[str, Any]) -> open_clip.CLIP:
    """Return a model with its weights, for open_clip's arguments."""
    file = weights(options)
    own = {"pretrained": str(file)} if "pretrained" in options else {"model_name": _at_hand(options)}
    return open_clip.create_model(**{**options, **own}, require_pretrained=True)


def _at_hand(options: Mapping[str, Any]) -> str:
    """Return the name by which open_clip finds a model on this machine: by that of a repository it asks the hub."""
    name: str = options["model_name"]
    return f"local-dir:{weights(options).parent}" if name.startswith("hf-hub:") else name


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
    return f"Without a network, bring its {CONFIG} and {WEIGHTS} in one folder and name it as `base='local-dir:FOLDER'`"


def mend(options: Mapping[str, Any]) -> str:
    """Return one sentence: which file of weights is damaged, and what to do."""
    file = weights(options)
    if options["model_name"].startswith("local-dir:"):
        return f"{file} is damaged: bring it again"
    return f"{file.resolve()} is damaged: delete it, and it is downloaded again"  # the cache links to its files


def change(base: str, wanted: str) -> str:
    """Return one sentence: how to come by the base model that an archive wants, where `base` is another one."""
    if base != wanted:
        return f"Leave `base` out: {wanted} comes with hellods" if wanted in OWN else remedy(wanted)
    if wanted in OWN:
        return "The one that it wants comes with another release of hellods"
    _, options = resolve(base)
    return f"If {weights(options).resolve()} was altered, delete it, and it is downloaded again"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's warnings, which `options` settles, and the hub's retries off the screen; other records pass.

    open_clip logs to the root logger, which would give the caller's program a handler that it never asked for.
    """
    root, handler, hub = logging.getLogger(), logging.NullHandler(), logging.getLogger("huggingface_hub")
    before, own = hub.level, str(Path(open_clip.__file__).parent)

    def foreign(record: logging.LogRecord) -> bool:
        return not record.pathname.startswith(own)

    root.addHandler(handler)
    root.addFilter(foreign)
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(before)
        root.removeFilter(foreign)
        root.removeHandler(handler)


def first_line(cause: Exception) -> str:
    return (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
