"""Time images alone, without labels or student: an archive against the ways in which people load images at 224 px.

    python tests/benchmarks/loading_images.py --folder WORK

All read the same streams, and crop, flip and normalize by the same rule, with a worker for each core; HelloLoader has
as many threads. The archive is drawn whole in each epoch. The others, which keep nothing from one epoch to the next,
draw --others images. A first epoch begins with opening the data.
"""

import io
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
import webdataset
from datasets import load_from_disk
from loading_data import (
    SIDE,
    alternate,
    archive,
    folder,
    keeps,
    parser,
    record_on,
    shards,
    streams,
    suffix,
    table,
    wait,
)
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from hellods import HelloDataset, HelloLoader
from hellods.teachers.scale import MEAN, STD

BATCH = 64
VIEW = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIDE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)


def of_stream(stream: bytes) -> Any:
    return VIEW(Image.open(io.BytesIO(stream)).convert("RGB"))


def of_rows(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"image": [VIEW(image.convert("RGB")) for image in rows["image"]], "label": rows["label"]}


def ways(path: Path, device: torch.device, workers: int, others: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return, by name, what opens the images of an archive and returns a loader; each pass over it is an epoch."""
    files, tars, rows = folder(path), shards(path), table(path)
    options: dict[str, Any] = {
        "num_workers": workers,
        "persistent_workers": True,
        "pin_memory": device.type == "cuda",
    }

    def some(dataset: Any) -> DataLoader[Any]:
        return DataLoader(dataset, BATCH, sampler=RandomSampler(dataset, num_samples=others), **options)

    def hello_dataset() -> Iterable[Any]:
        return DataLoader(HelloDataset(path, labels="hard"), BATCH, shuffle=True, **options)

    def web_dataset() -> Iterable[Any]:
        found = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).to_tuple(suffix(path)[1:], "cls")
        batches = found.map_tuple(of_stream, int).batched(BATCH).with_epoch(others // BATCH // workers)
        return webdataset.WebLoader(batches, batch_size=None, **options)  # type: ignore[no-any-return]

    return {
        "HelloLoader": lambda: HelloLoader(HelloDataset(path, labels="hard"), BATCH, shuffle=True, device=device),
        "HelloDataset, DataLoader": hello_dataset,
        "ImageFolder, DataLoader": lambda: some(
            ImageFolder(str(files), VIEW, is_valid_file=lambda name: name.endswith(suffix(path)))
        ),
        "WebDataset": web_dataset,
        "Hugging Face datasets, DataLoader": lambda: some(load_from_disk(str(rows)).with_transform(of_rows)),
    }


def epochs(open_loader: Callable[[], Iterable[Any]], device: torch.device) -> dict[str, float]:
    """Return images a second in the first epoch, which begins with opening, and in the second."""
    found, start = {}, time.perf_counter()
    loader = open_loader()
    for name in ("first", "later"):
        count = 0
        for batch in loader:
            images = (batch["image"] if isinstance(batch, dict) else batch[0]).to(device, non_blocking=True)
            count += len(images)
        wait(device)
        found[name] = count / (time.perf_counter() - start)
        start = time.perf_counter()
    return found


def decode_alone(path: Path, count: int) -> float:
    """Return images a second that Pillow decodes on all cores: more can none that decodes in each epoch."""
    taken = [stream for _, _, stream in islice(streams(path), count)]
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda stream: Image.open(io.BytesIO(stream)).load(), taken))
    return len(taken) / (time.perf_counter() - start)


def write_alone(device: torch.device) -> float:
    """Return images a second that can be written as float32, or copied to a GPU from pinned memory."""
    images = torch.zeros(BATCH, 3, SIDE, SIDE, pin_memory=device.type == "cuda")
    target = torch.empty_like(images, device=device)
    wait(device)
    start, passes = time.perf_counter(), 50
    for _ in range(passes):
        target.copy_(images, non_blocking=True)
    wait(device)
    return passes * BATCH / (time.perf_counter() - start)


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return every rate of each way, and the medians against ImageFolder's."""
    plain = found["ImageFolder, DataLoader"]
    return {
        name: {
            kind: {
                "images_a_second": [round(turn[kind], 1) for turn in measured],
                "times_image_folder": round(
                    median(turn[kind] for turn in measured) / median(turn[kind] for turn in plain), 2
                ),
            }
            for kind in ("first", "later")
        }
        for name, measured in found.items()
    }


def main() -> None:
    options = parser(__doc__)
    keeps(options)
    options.add_argument("--count", type=int, default=10_000, help="images in the archive")
    options.add_argument("--others", type=int, default=2048, help="images that the others draw in an epoch")
    options.add_argument("--codecs", nargs="+", default=["jpeg", "avif"])
    options.add_argument("--workers", type=int, default=os.cpu_count())
    chosen = options.parse_args()
    device, result = torch.device(chosen.device), {}
    for codec in chosen.codecs:
        path = archive(chosen.folder, chosen.count, codec)
        loaders = ways(path, device, chosen.workers, min(chosen.others, chosen.count))

        def measured(open_loader: Callable[[], Iterable[Any]]) -> Callable[[], dict[str, float]]:
            return lambda: epochs(open_loader, device)

        found = alternate({name: measured(open_loader) for name, open_loader in loaders.items()}, chosen.turns)
        result[codec] = {
            "bytes_an_image": round(path.stat().st_size / chosen.count),
            "ways": summary(found),
            "limits_images_a_second": {
                "decoding, all cores": round(decode_alone(path, 1000), 1),
                "writing or copying float32": round(write_alone(device), 1),
            },
        }
    facts = {"images": chosen.count, "side": SIDE, "workers": chosen.workers}
    record_on(device, "loading_images", facts | result, "webdataset", "datasets")


if __name__ == "__main__":
    main()
