"""Train `hello-convnet`, the CLIP for small images that the package ships, on CIFAR-100's images and class names.

    python tests/benchmarks/hello_convnet.py CIFAR100_FOLDER --out hellods/assets/hello-convnet

The image tower is the ConvNet-3 that data set distillation has its students learn, so that a projector on it copies an
assistant of that kind closely. It learns to meet the captions of `hello-tiny`, whose text tower it keeps.
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
from hello_tiny import CONFIG, MEAN, STD, TEMPLATES, load
from safetensors.torch import load_file, save_file

from hellods.device import training_dtype
from hellods.labels.models import ASSETS, WEIGHTS
from hellods.labels.models import CONFIG as CONFIG_FILE
from hellods.nets import convnet
from hellods.views.draw import draw
from hellods.views.normalize import normalize
from hellods.views.render import render
from hellods.views.rule import Views

SEED, EPOCHS, BATCH, PEAK, DECAY, WARMUP = 0, 20, 128, 2e-3, 0.05, 2
VIEWS = Views(size=32, scale=(0.35, 1.0), flip=True)
VISION = {"image_size": 32, "timm_model_name": "hello_convnet3", "timm_pool": "", "timm_proj": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="CIFAR-100 as image folders train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    torch.manual_seed(SEED)
    images, targets, classes = load(options.folder / "train")
    test_images, test_targets, _ = load(options.folder / "val")
    tiny, _, _ = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / 'hello-tiny'}")
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    with torch.no_grad():
        prompts = [tokenizer([template.format(name) for name in classes]) for template in TEMPLATES]
        texts = F.normalize(sum(tiny.encode_text(prompt, normalize=True) for prompt in prompts), dim=1)

    network = convnet(3, texts.shape[1], VIEWS.size).to(memory_format=torch.channels_last)
    scale = torch.nn.Parameter(torch.tensor(math.log(10)))
    decayed = [value for value in network.parameters() if value.ndim > 1]
    plain = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": [*plain, scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK)
    steps, dtype = len(images) // BATCH, training_dtype("cpu")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK, total_steps=EPOCHS * steps, pct_start=WARMUP / EPOCHS, cycle_momentum=False
    )
    generator, places = torch.Generator().manual_seed(SEED), torch.arange(BATCH)
    start = time.monotonic()
    for epoch in range(EPOCHS):
        for step, batch in enumerate(torch.randperm(len(images), generator=generator).split(BATCH)[:steps]):
            drawn = draw(VIEWS, (32, 32), BATCH, SEED, epoch * steps + step, places)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                features = network(normalize(render(images[batch], drawn), MEAN, STD))
            logits = scale.exp() * F.normalize(features.float(), dim=1) @ texts.T
            loss = F.cross_entropy(logits, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.monotonic() - start:.0f} s", flush=True)

    weights = {f"visual.trunk.{name}": value for name, value in network.state_dict().items()}
    weights |= {
        name: value for name, value in load_file(ASSETS / "hello-tiny" / WEIGHTS).items() if "visual" not in name
    }
    weights |= {"logit_scale": scale.detach()}
    state = {
        name: value.half() if value.is_floating_point() else torch.zeros_like(value) for name, value in weights.items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in state.items()}, options.out / WEIGHTS, metadata={"format": "pt"}
    )
    config = {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "vision_cfg": VISION}}
    (options.out / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    shipped, _, _ = open_clip.create_model_and_transforms(f"local-dir:{options.out}")
    shipped.eval()
    with torch.no_grad():
        caption = shipped.encode_text(prompts[0], normalize=True)
        seen = [shipped.encode_image(normalize(part, MEAN, STD), normalize=True) for part in test_images.split(500)]
    record(
        "hello_convnet",
        {
            "seed": SEED,
            "epochs": EPOCHS,
            "seconds": round(time.monotonic() - start),
            "image_tower_parameters": sum(value.numel() for value in network.parameters()),
            "cifar100_test_top1_from_text": round(
                ((torch.cat(seen) @ caption.T).argmax(1) == test_targets).double().mean().item(), 4
            ),
        },
    )


if __name__ == "__main__":
    main()
