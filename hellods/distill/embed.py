"""embed(): the base model of a projector goes into its archive."""

from dataclasses import asdict, fields, replace
from typing import Final

import open_clip
import torch
from safetensors.torch import save

from hellods.errors import HelloError, OptionError
from hellods.format import wire
from hellods.labels.backbones import base_digest
from hellods.labels.config import Tower
from hellods.labels.models import first_line, resolve
from hellods.labels.precision import TOLERANCES
from hellods.labels.projector import Projector
from hellods.record import from_json, to_json

TRAINING: Final = ("timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout")  # of no weight in labels


def embed(projector: Projector, base: str) -> None:
    """Let the projector's config say how its base model is rebuilt from the archive, after trying that it can be.

    Args:
        projector: on the CPU; not fitted yet.
        base: what it was created with.

    Raises:
        OptionError: the base model is too large, or of a kind that the file format cannot record.
    """
    name, tensors = projector.config.base.removeprefix("given:"), projector.base()
    size = sum(value.nbytes for value in tensors.values())
    size = size if size > wire.MAX_BACKBONE else len(save(tensors))
    if size > wire.MAX_BACKBONE:
        raise OptionError(
            f"base model {name!a} has {size:,} bytes without its text tower, and at most {wire.MAX_BACKBONE:,} are "
            "embedded: leave out `embed_base`, or choose a smaller `base`"
        )
    config = replace(projector.config, tower=describe(projector, base))
    side = config.preprocess.side
    noise = torch.randint(256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        again = Projector.restore(config, config.descriptions, projector.state(), embedded=tensors)
        with torch.no_grad():
            off = (again.features(noise) - projector.features(noise)).abs().max()
    except HelloError as cause:
        raise OptionError(f"base model {name!a} cannot be embedded: {cause}") from cause
    if off > TOLERANCES[config.precision]:
        raise OptionError(f"base model {name!a} cannot be embedded: rebuilt from its config it answers otherwise")
    projector.config = config


def describe(projector: Projector, base: str) -> Tower:
    """Return what a reader needs beside the tensors to build the projector's image tower.

    Raises:
        OptionError: open_clip's config of the base sets what the file format cannot record.
    """
    where = f"base model {projector.config.base.removeprefix('given:')!a} cannot be embedded"
    _, options = resolve(base)
    try:
        facts = open_clip.get_model_config(options["model_name"])
        vision = asdict(open_clip.CLIPVisionCfg(**facts["vision_cfg"]))
    except Exception as cause:  # the folder or the cache that it was loaded from is gone
        raise OptionError(f"{where}: its config cannot be read: {first_line(cause)}") from cause
    known, usual = {field.name for field in fields(Tower)}, asdict(open_clip.CLIPVisionCfg())
    other = [key for key in vision if key not in (*known, *TRAINING) and vision[key] != usual[key]]
    if other:
        raise OptionError(f"{where}: its image tower sets {other[0]}, which the file format cannot record")
    layers = vision["layers"]
    value = {key: vision[key] for key in known & vision.keys()} | {
        "sha256": base_digest(projector.published),
        "embed_dim": facts["embed_dim"],
        "image_size": projector.config.preprocess.side,
        "layers": [layers] if isinstance(layers, int) else layers,
        "mlp_ratio": float(vision["mlp_ratio"]),
    }
    return from_json(Tower, to_json(value), where, error=OptionError)
