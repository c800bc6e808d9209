"""Any tower of open_clip's takes deltas: identical at the start, gradients in them alone, merged into its weights.

Its BatchNorm is folded in between, as a projector does.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from hellods.labels.folding import fold
from hellods.labels.lowrank import adapt, adaptable, merge

TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
VIT = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32}


def timm(name: str, side: int, **more: str) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": side} | more


TOWERS: dict[str, dict[str, Any]] = {
    "ViT": VIT,
    "ViT, pooled by attention, as CoCa's": VIT
    | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 8},
    "ViT, normalized queries and keys": VIT | {"block_type": "custom", "qk_norm": True},
    "ViT, averaged, scaled layers": VIT | {"pool_type": "avg", "ls_init_value": 0.1, "no_ln_pre": True},
    "ModifiedResNet": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None, "image_size": 64},
    "MobileNetV2": timm("mobilenetv2_050", 64),
    "ConvNeXt": timm("convnext_atto", 64),
    "MobileCLIP (FastViT)": timm("fastvit_mci0", 64),
    "timm's ViT": timm("vit_tiny_patch16_224", 224),
    "timm's ViT, relative positions": timm("vit_relpos_small_patch16_224", 224),
    "timm's ResNet, pooled by attention": timm("resnet26d", 64, timm_pool="rot_attn", timm_proj=""),
    "EVA": timm("eva02_tiny_patch14_224", 224),
    "Perception Encoder": timm("vit_pe_core_tiny_patch16_384", 384),
    "ViTamin": timm("vitamin_small_224", 224),
    "Swin": timm("swin_tiny_patch4_window7_224", 224),
}
MORE_TOWERS: dict[str, dict[str, Any]] = {
    "MobileCLIP-B": timm("vit_base_mci_224", 224),
    "SigLIP": timm("vit_base_patch16_siglip_224", 224, timm_proj=""),
}


def tower(facts: dict[str, Any]) -> nn.Module:
    """Return an image tower of random weights; those of its norms are not zero, so that every branch counts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.Module = open_clip.CLIP(32, facts, TEXT).visual
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data.uniform_(0.5, 1.5)
    return made.eval().requires_grad_(False)


def answer(tower: nn.Module, images: Tensor) -> Tensor:
    found = tower(images)
    return found[0] if isinstance(found, tuple) else found


@pytest.fixture(autouse=True)
def _one_path() -> Iterator[None]:
    """Bare modules take a path of their own through attention, which rounds otherwise."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def check(tower: nn.Module, side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 3, side, side, generator=generator)
    matrices = sum(value.numel() for name, value in tower.named_parameters() if value.ndim > 1 and "pos" not in name)
    with torch.no_grad():  # for gradients torch may take another path through attention, which rounds otherwise
        before = answer(tower, images)
        bare = [getattr(owner, name) for owner, name in adaptable(tower)]
        adapt(tower, 4, generator)
        adapted = [getattr(owner, name) for owner, name in adaptable(tower)]
        assert all(torch.equal(weight, sum_) for weight, sum_ in zip(bare, adapted, strict=True))
        fold(tower, images)
        # Where a weight lies in memory decides how some products round, and so does folding.
        torch.testing.assert_close(answer(tower, images), before, rtol=1e-4, atol=1e-5)

    deltas = {name: value for name, value in tower.named_parameters() if value.requires_grad}
    numbers = sum(weight.numel() for weight in adapted)
    assert numbers > 0.98 * matrices
    assert 0 < sum(value.numel() for value in deltas.values()) < numbers
    for value in deltas.values():
        value.data.add_(torch.randn(value.shape, generator=generator), alpha=0.02 / prod(value.shape[1:]) ** 0.5)
    changed = answer(tower, images)
    changed.square().sum().backward()
    learning = {name for name, value in tower.named_parameters() if value.grad is not None and value.grad.any()}
    assert learning == deltas.keys()

    weights = [getattr(owner, name).detach() for owner, name in adaptable(tower)]
    merge(tower)
    assert not any(value.requires_grad for value in tower.parameters())
    merged = [getattr(owner, name) for owner, name in adaptable(tower)]
    assert all(torch.equal(weight, sum_) for weight, sum_ in zip(weights, merged, strict=True))
    torch.testing.assert_close(answer(tower, images), changed.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TOWERS)
def test_tower_takes_deltas(name: str) -> None:
    check(tower(TOWERS[name]), TOWERS[name]["image_size"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_TOWERS)
def test_larger_tower_takes_deltas(name: str) -> None:
    check(tower(MORE_TOWERS[name]), MORE_TOWERS[name]["image_size"])


def test_every_family_of_open_clip_is_here() -> None:
    def family(facts: dict[str, Any]) -> str:
        name = facts.get("timm_model_name")
        return model_entrypoint(name).__module__ if name else "a tower of open_clip's own"

    known = {family(facts) for facts in (TOWERS | MORE_TOWERS).values()}
    assert {family(open_clip.get_model_config(name)["vision_cfg"]) for name in open_clip.list_models()} <= known


@pytest.mark.slow
def test_tower_of_trained_weights_takes_deltas(shared: Path) -> None:
    model = open_clip.create_model(f"local-dir:{shared / 'data' / 'clip' / 'mobilenetv2-in1k'}").eval()
    check(model.visual.requires_grad_(False), 224)
