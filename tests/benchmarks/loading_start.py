"""Measure what a data set costs beside its images: the first batch, memory, pickling, and the handling of lazy labels.

    python tests/benchmarks/loading_start.py --folder WORK

Memory is what each process holds alone (unique set size), and what they share beside that (proportional set size), at
the end of each epoch of a DataLoader with a worker for each core. A lazy label is set against a float32 label of as
many classes, both already at hand: a batch is taken apart, collated and sent through a pipe, as between worker and
parent.
"""

import os
import pickle
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from common import record
from loading_data import alternate, archive, keeps, parser, surroundings
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from hellods import HelloDataset, HelloLoader
from hellods.data.lazy import LazyLabel

BATCH = 64
CLASSES = 1000


def first_batch(path: Path, count: int) -> dict[str, Callable[[], float]]:
    """Return, by way, what opens an archive and returns the seconds until its first batch is there, labels made."""
    batch = min(BATCH, count)

    def loader() -> Any:
        return HelloLoader(HelloDataset(path), batch, shuffle=True, device="cpu")

    def workers() -> Any:
        return DataLoader(HelloDataset(path), batch, shuffle=True, num_workers=os.cpu_count() or 1)

    def timed(make: Callable[[], Any]) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            _, labels = next(iter(make()))
            labels.sum().item()
            return time.perf_counter() - start

        return once

    return {f"HelloLoader, {count}": timed(loader), f"DataLoader, {count}": timed(workers)}


def memory(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Return the bytes of parent and workers after each epoch; images are decoded in the first."""
    loader = DataLoader(
        HelloDataset(path, labels="hard"), BATCH, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True
    )
    found = []
    for _ in range(epochs):
        for _ in loader:
            pass
        parent = psutil.Process()
        held = [process.memory_full_info() for process in (parent, *parent.children())]
        held = [facts for facts in held if facts.uss > 2**20 * 8]  # workers, not the resource tracker
        found.append({"alone": [facts.uss for facts in held], "in_all": sum(facts.pss for facts in held)})
    return found


def handling(path: Path) -> dict[str, Callable[[], float]]:
    """Return, by kind of label, what handles a hundred batches and returns the seconds of one."""
    dataset = HelloDataset(path)
    receiver, sender = Pipe(duplex=False)

    def lazy() -> list[Tensor]:
        handles = torch.stack(
            [torch.full((BATCH,), dataset._samples.id), torch.zeros(BATCH).long(), torch.arange(BATCH)], 1
        )
        return [LazyLabel.of(handle, CLASSES, (dataset._samples,)) for handle in handles.unbind()]

    def plain() -> list[Tensor]:
        return list(torch.zeros(BATCH, CLASSES).unbind())

    def timed(labels: Callable[[], list[Tensor]]) -> Callable[[], float]:
        def once() -> float:
            start, times = time.perf_counter(), 100
            for _ in range(times):
                sender.send_bytes(ForkingPickler.dumps(default_collate(labels())))
                pickle.loads(receiver.recv_bytes())
            return (time.perf_counter() - start) / times

        return once

    return {"lazy": timed(lazy), "float32": timed(plain)}


def rounded(found: dict[str, list[float]], places: int) -> dict[str, Any]:
    return {name: [round(value, places) for value in values] for name, values in found.items()}


def main() -> None:
    options = parser(__doc__)
    keeps(options)
    options.add_argument("--counts", type=int, nargs="+", default=[10, 10_000], help="images in the archives")
    options.add_argument("--epochs", type=int, default=5)
    chosen = options.parse_args()
    paths = {count: archive(chosen.folder, count) for count in chosen.counts}
    ways = {name: way for count, path in paths.items() for name, way in first_batch(path, count).items()}
    labels = alternate(handling(paths[max(paths)]), chosen.turns)
    result = {
        "first_batch_seconds": rounded(alternate(ways, chosen.turns), 4),
        "pickled_bytes": {count: len(pickle.dumps(HelloDataset(path))) for count, path in paths.items()},
        "memory_bytes": memory(paths[max(paths)], chosen.epochs),
        "label_seconds_a_batch": rounded(labels, 7),
        "lazy_over_float32_seconds": round(median(labels["lazy"]) - median(labels["float32"]), 7),
        "classes": CLASSES,
        "batch": BATCH,
    }
    record("loading_start", surroundings(torch.device(chosen.device), "psutil") | result)


if __name__ == "__main__":
    main()
