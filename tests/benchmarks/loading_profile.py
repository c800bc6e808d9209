"""Time the parts of a step: drawing, rendering and normalizing views, making labels, and the student that learns.

    python tests/benchmarks/loading_profile.py --folder WORK

A batch of 32 views of 224 px, soft labels by a projector on a MobileNetV2 of 224 px, a ResNet-18 as in
`loading_epoch.py`. The parts are the very functions that a HelloLoader calls, one after the other, on images that were
decoded before. Limits are floating-point operations at the rate of one large float32 or bfloat16 matrix product, and
the time to write a batch of float32 values, measured in the same turns.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from common import shared
from loading_data import SIDE, VIEWS, alternate, archive, keeps, parser, record_on, seconds
from loading_epoch import Student, arithmetic, operations
from loading_labels import PRODUCT

from hellods import HelloDataset, HelloLoader
from hellods.data.memory import Batches
from hellods.format.archive import Archive
from hellods.teachers.scale import MEAN, STD
from hellods.views.draw import draw
from hellods.views.normalize import normalize
from hellods.views.render import render

BATCH, COUNT = 32, 96


def main() -> None:
    options = parser(__doc__)
    keeps(options)
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    base = f"local-dir:{shared() / 'data' / 'clip' / 'mobilenetv2-in1k'}"
    path = archive(chosen.folder, COUNT, base=base)
    dataset = HelloDataset(path, base=base)
    loader = HelloLoader(dataset, BATCH, shuffle=True, device=device)
    student = Student(len(dataset.classes), device)
    for images, labels in loader:  # decodes, and makes the first labels
        student.learn(images, labels)
    with Archive.open(path) as opened:
        stored = torch.tensor(opened.pixels()).permute(0, 3, 1, 2).contiguous().to(device)
    indices = torch.arange(BATCH, device=device)
    drawn = draw(VIEWS, (SIDE, SIDE), COUNT, 0, 0, indices)
    views = render(stored, drawn)
    images, labels = normalize(views, MEAN, STD), dataset.label_maker(views).softmax(1)
    passes = iter(_endless(loader))
    side = PRODUCT[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=student.dtype) for _ in range(2))
    exact = torch.randn(side, side, device=device)
    target, batches = torch.empty_like(images), Batches()

    ways: dict[str, Callable[[], Any]] = {
        "draw": lambda: draw(VIEWS, (SIDE, SIDE), COUNT, 0, 0, indices),
        "render": lambda: render(stored, drawn),
        "normalize": lambda: normalize(
            views, MEAN, STD, batches.empty(views.shape, torch.float32) if views.is_cpu else None
        ),
        "label": lambda: dataset.label_maker(views),
        "student": lambda: student.learn(images, labels),
        "a whole step": lambda: student.learn(*next(passes)),
        "product": lambda: left @ right,
        "exact product": lambda: exact @ exact,
        "write": lambda: target.copy_(images),
    }

    found = alternate({name: partial(seconds, call, device) for name, call in ways.items()}, chosen.turns)
    rate, exact_rate = (2 * side**3 / median(found.pop(name)) for name in ("product", "exact product"))
    write = median(found.pop("write"))
    result = {
        "batch": BATCH,
        "seconds": {name: [round(value, 5) for value in values] for name, values in found.items()},
        "limit_seconds": {
            "normalize": round(write, 5),
            "label": round(operations(lambda: dataset.label_maker(views)) / exact_rate, 5),
            "student": round(operations(lambda: student.learn(images, labels)) / rate, 5),
        },
    }
    record_on(device, f"loading_profile{arithmetic(device)}", result)


def _endless(loader: HelloLoader) -> Any:
    while True:
        yield from loader


if __name__ == "__main__":
    main()
