"""Store the images of a file by several codecs, and record their bytes and what students learn from what comes back.

    python tests/benchmarks/stored_images.py 10 --folder WORK [--images imagenette] [--only NAME ...] [--students 3]

CIFAR-10, or Imagenette at 128 px, at so many images a class, chosen by a given teacher, labelled by the assistant
itself, which sees what students see; WORK keeps both. Students are of its kind, by RDED's protocol. Results are added
to those of earlier runs.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from builds import SETS
from common import RESULTS, record
from fits import prefix, student, subject
from torch import Tensor

from hellods.format.codecs import CODECS, decode, encode

QUALITIES = (95, 90, 75, 60, 40)
STORED: dict[str, tuple[str, int | None]] = {
    **{f"{name}, lossless": (name, None) for name, codec in CODECS.items() if codec.lossless},
    **{f"{name} {quality}": (name, quality) for name, codec in CODECS.items() if codec.lossy for quality in QUALITIES},
}


def stored(images: Tensor, codec: str, quality: int | None) -> tuple[Tensor, int]:
    """Return the images as they come back, uint8 (N, 3, H, W), and their bytes."""
    pictures = images.permute(0, 2, 3, 1).numpy()
    streams = [encode(np.ascontiguousarray(picture), codec, quality) for picture in pictures]
    height, width = pictures.shape[1:3]
    back = np.stack([decode(stream, codec, height, width, "image") for stream in streams])
    return torch.from_numpy(back).permute(0, 3, 1, 2), sum(map(len, streams))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_per_class", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", choices=[*SETS], default="cifar10")
    parser.add_argument("--only", nargs="+", default=[*STORED], choices=[*STORED])
    parser.add_argument("--students", type=int, default=3)
    options = parser.parse_args()
    here = subject(options.images, options.images_per_class, options.folder)
    name = f"{prefix(options.images)}stored_images_ipc{options.images_per_class}"
    kept = RESULTS / f"{name}.json"
    for way in options.only:
        found = json.loads(kept.read_text())["stored"] if kept.exists() else {}
        done = found.get(way, {}).get("students", [])
        images, size = stored(here.images, *STORED[way])
        error = (images.float() - here.images.float()).square().mean().item()
        seeds = range(len(done), options.students)
        done = done + [student(replace(here, images=images), here.assistant, seed).accuracy for seed in seeds]
        print(way, size, done, file=sys.stderr, flush=True)
        found = json.loads(kept.read_text())["stored"] if kept.exists() else {}  # of another run beside this one
        facts = {"bytes": size, "squared_error": round(error, 2), "students": done}
        record(name, {"stored": found | {way: facts}})


if __name__ == "__main__":
    main()
