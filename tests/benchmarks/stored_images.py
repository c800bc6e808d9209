"""Store the images of a file by several codecs, and record their bytes and what students learn from what comes back.

    python tests/benchmarks/stored_images.py 10 --folder WORK [--images imagenette] [--only NAME ...] [--students 3]

CIFAR-10, or Imagenette at 128 px, at so many images a class, chosen by a given teacher, labelled by the assistant
itself, which sees what students see; WORK keeps both. Students are of its kind, by RDED's protocol. Results are added
to those of earlier runs.
"""

import json
import sys
from dataclasses import replace

from common import RESULTS, record
from fits import arguments, prefix, student, subject

from hellods.distill.store import as_stored
from hellods.format.codecs import CODECS

QUALITIES = (95, 90, 75, 60, 40)
STORED: dict[str, tuple[str, int | None]] = {
    **{f"{name}, lossless": (name, None) for name, codec in CODECS.items() if codec.lossless},
    **{f"{name} {quality}": (name, quality) for name, codec in CODECS.items() if codec.lossy for quality in QUALITIES},
}


def main() -> None:
    options = arguments(__doc__, [*STORED], students=3)
    here = subject(options.images, options.images_per_class, options.folder)
    name = f"{prefix(options.images)}stored_images_ipc{options.images_per_class}"
    kept = RESULTS / f"{name}.json"
    for way in options.only:
        found = json.loads(kept.read_text())["stored"] if kept.exists() else {}
        done = found.get(way, {}).get("students", [])
        streams, images = as_stored(here.images, *STORED[way])
        error = (images.float() - here.images.float()).square().mean().item()
        seeds = range(len(done), options.students)
        done = done + [student(replace(here, images=images), here.assistant, seed).accuracy for seed in seeds]
        print(way, error, done, file=sys.stderr, flush=True)
        found = json.loads(kept.read_text())["stored"] if kept.exists() else {}  # of another run beside this one
        facts = {"bytes": sum(map(len, streams)), "squared_error": round(error, 2), "students": done}
        record(name, {"stored": found | {way: facts}})


if __name__ == "__main__":
    main()
