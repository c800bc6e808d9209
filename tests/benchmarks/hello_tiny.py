"""Train `hello-tiny`, the small CLIP that the package ships, on CIFAR-100's images and class names.

    python tests/benchmarks/hello_tiny.py CIFAR100_FOLDER --out hellods/assets/hello-tiny

The image tower is CLIP's own ModifiedResNet in miniature: its stem halves twice, so 32 px images are enlarged to 64.
Each step sets a batch of images against the captions of all classes (image-to-text cross-entropy), with CutMix.
"""

import argparse
import json
import math
import time
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from common import record
from safetensors.torch import save_file
from torch import Tensor
from torchvision.datasets import ImageFolder

SEED, EPOCHS, BATCH, PEAK, DECAY, WARMUP = 0, 80, 128, 2e-3, 0.1, 2
VOCABULARY = 49408
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
TEMPLATES = ("a photo of a {}", "a photo of the {}", "a small photo of a {}", "a picture of a {}", "a {}", "{}")
CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [3, 3, 2, 1], "width": 16, "head_width": 64, "patch_size": None},
        "text_cfg": {"context_length": 16, "vocab_size": VOCABULARY, "width": 64, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
}


def load(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return uint8 (N, 3, 32, 32), int64 (N,) and the class names."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    data = ImageFolder(folder)
    images = torch.stack([pil_to_tensor(image) for image, _ in data])
    return images, torch.tensor(data.targets), [name.replace("_", " ") for name in data.classes]


def preprocess(images: Tensor) -> Tensor:
    """Return what the tower takes, from uint8 or float (B, 3, 32, 32) in 0..255."""
    mean, std = (255 * torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    enlarged = F.interpolate((images.float() - mean) / std, size=64, mode="bicubic", antialias=True)
    return enlarged.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return random resized crops (area 0.35 to 1, aspect 3/4 to 4/3), half of them mirrored."""
    count = len(images)
    uniform = torch.rand(count, 5, generator=generator)
    area, aspect = 0.35 + 0.65 * uniform[:, 0], ((uniform[:, 1] * 2 - 1) * math.log(4 / 3)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * (uniform[:, 4] < 0.5).float().mul(2).sub(1)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * (2 * uniform[:, 2] - 1)
    theta[:, 1, 2] = (1 - height) * (2 * uniform[:, 3] - 1)
    grid = F.affine_grid(theta, [count, 3, 32, 32], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Return images, every second batch mixed, the partners' targets and the share that the images kept."""
    order = torch.randperm(len(images), generator=generator)
    chance, keep = torch.rand(2, generator=generator).tolist()
    keep = keep if chance < 0.5 else 1.0
    side = round(32 * math.sqrt(1 - keep))
    top, left = torch.randint(0, 33 - side, (2,), generator=generator).tolist()
    mixed = images.clone()
    mixed[:, :, top : top + side, left : left + side] = images[order, :, top : top + side, left : left + side]
    return mixed, targets[order], 1 - side * side / 1024


@torch.no_grad()
def accuracy(model: open_clip.CLIP, images: Tensor, targets: Tensor, prompts: Tensor) -> float:
    """Return zero-shot top-1 in 0..1: the nearest class caption."""
    model.eval()
    text = model.encode_text(prompts, normalize=True)
    batches = [model.encode_image(preprocess(batch)) @ text.T for batch in images.split(500)]
    model.train()
    return (torch.cat(batches).argmax(1) == targets).float().mean().item()


def export(model: open_clip.CLIP, tokens: Tensor, out: Path) -> None:
    """Write the weights in fp16 (BatchNorm statistics too), the rows of tokens never seen set to zero."""
    state = {}
    for name, value in model.state_dict().items():
        state[name] = value.detach().half().contiguous() if value.is_floating_point() else torch.zeros_like(value)
    seen = state["token_embedding.weight"]
    state["token_embedding.weight"] = torch.zeros(VOCABULARY, seen.shape[1], dtype=torch.float16)
    state["token_embedding.weight"][tokens] = seen
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    (out / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="CIFAR-100 as image folders train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()

    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, targets, classes = load(options.folder / "train")
    test_images, test_targets, _ = load(options.folder / "val")
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    prompts = torch.stack([tokenizer([template.format(name) for name in classes]) for template in TEMPLATES])
    # Only tokens that occur are trained; the map keeps their order, so the end token still has the highest number.
    tokens, compact = prompts.unique(return_inverse=True)

    model = open_clip.CLIP(**CONFIG["model_cfg"]).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.token_embedding = torch.nn.Embedding.from_pretrained(model.token_embedding.weight[tokens], freeze=False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98))
    steps_per_epoch = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        PEAK,
        total_steps=options.epochs * steps_per_epoch,
        pct_start=WARMUP / options.epochs,
        cycle_momentum=False,
    )
    start = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH)[:steps_per_epoch]:
            views, partner, keep = cutmix(augment(images[batch], generator), targets[batch], generator)
            captions = compact[torch.randint(len(TEMPLATES), (), generator=generator)]
            with torch.autocast("cpu", torch.bfloat16):
                features = model.encode_image(preprocess(views))
            text = model.encode_text(captions, normalize=True)
            logits = model.logit_scale.exp() * F.normalize(features.float(), dim=-1) @ text.T
            loss = keep * F.cross_entropy(logits, targets[batch]) + (1 - keep) * F.cross_entropy(logits, partner)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
        if epoch % 5 == 0 or epoch == options.epochs:
            top1 = accuracy(model, test_images, test_targets, compact[0])
            print(
                f"epoch {epoch}: loss {loss.item():.3f}, test top-1 from text {top1:.4f}, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
            export(model, tokens, options.out)

    shipped, _, _ = open_clip.create_model_and_transforms(f"local-dir:{options.out}")
    record(
        "hello_tiny",
        {
            "seed": SEED,
            "epochs": options.epochs,
            "seconds": round(time.monotonic() - start),
            "image_tower_parameters": sum(parameter.numel() for parameter in model.visual.parameters()),
            "cifar100_test_top1_from_text": round(accuracy(shipped, test_images, test_targets, prompts[0]), 4),
        },
    )


if __name__ == "__main__":
    main()
