"""Measure what a data set costs beside its images: the first batch, memory, pickling, and the handling of lazy labels.

    python tests/benchmarks/loading_start.py --folder WORK

The first time of each way includes the import of open_clip, and is not counted; a fresh process, which imports all,
is timed apart, from its start. Memory is what each process of a
DataLoader with a worker for each core holds alone (unique set size) at the end of an epoch, parent first, and what all
of them hold (the sum of their proportional set sizes). A lazy label is set against a float32 label of as many classes:
a batch of either is made, collated and pickled as between worker and parent, and read again; a float32 batch is
collated in shared memory, as a worker does.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from loading_data import alternate, archive, keeps, parser, record_on
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from hellods import HelloDataset, HelloLoader
from hellods.data.lazy_label import LazyLabel

BATCH = 64
CLASSES = 1000
FRESH = """
import sys
from hellods import HelloDataset, HelloLoader
images, labels = next(iter(HelloLoader(HelloDataset(sys.argv[1]), int(sys.argv[2]), shuffle=True, device=sys.argv[3])))
labels.sum().item()
"""


def first_batch(path: Path, count: int, device: torch.device) -> dict[str, Callable[[], float]]:
    """Return, by way, what opens an archive and returns the seconds until its first batch is there, labels made."""
    batch = min(BATCH, count)

    def loader() -> Any:
        return HelloLoader(HelloDataset(path), batch, shuffle=True, device=device)

    def workers() -> Any:
        return DataLoader(HelloDataset(path), batch, shuffle=True, num_workers=os.cpu_count() or 1)

    def timed(make: Callable[[], Any]) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            batches = iter(make())
            _, labels = next(batches)
            labels.to(device).sum().item()
            taken = time.perf_counter() - start
            for _ in batches:  # what was begun is ended, outside of the time
                break
            del batches
            return taken

        return once

    def fresh() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", FRESH, str(path), str(batch), str(device)], check=True)
        return time.perf_counter() - start

    return {
        f"HelloLoader, {count}": timed(loader),
        f"DataLoader, {count}": timed(workers),
        f"HelloLoader in a fresh process, {count}": fresh,
    }


def memory(path: Path, epochs: int, device: torch.device) -> list[dict[str, Any]]:
    """Return the bytes of parent and workers after each epoch; images are decoded in the first, labels made in each."""
    loader = DataLoader(
        HelloDataset(path), BATCH, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True
    )
    found = []
    for _ in range(epochs):
        for _, labels in loader:
            labels.to(device)
        parent = psutil.Process()
        workers = [psutil.Process(worker.pid) for worker in loader._iterator._workers]  # type: ignore[union-attr]
        held = [process.memory_full_info() for process in (parent, *workers)]
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
                sender.send_bytes(ForkingPickler.dumps(collated(labels())))
                pickle.loads(receiver.recv_bytes())
            return (time.perf_counter() - start) / times

        return once

    return {"lazy": timed(lazy), "float32": timed(plain)}


def collated(labels: list[Tensor]) -> Tensor:
    """Return the batch as a worker's default_collate makes it."""
    if isinstance(labels[0], LazyLabel):
        return default_collate(labels)  # type: ignore[no-any-return]
    room = torch.empty(0).new(torch.UntypedStorage._new_shared(4 * len(labels) * CLASSES))
    return torch.stack(labels, out=room.resize_(len(labels), CLASSES))


def rounded(found: dict[str, list[float]], places: int) -> dict[str, Any]:
    return {name: [round(value, places) for value in values] for name, values in found.items()}


def main() -> None:
    options = parser(__doc__)
    keeps(options)
    options.add_argument("--counts", type=int, nargs="+", default=[10, 10_000], help="images in the archives")
    options.add_argument("--epochs", type=int, default=5)
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    paths = {count: archive(chosen.folder, count) for count in chosen.counts}
    ways = {name: way for count, path in paths.items() for name, way in first_batch(path, count, device).items()}
    labels = alternate(handling(paths[max(paths)]), chosen.turns)
    for once in ways.values():
        once()
    result = {
        "first_batch_seconds": rounded(alternate(ways, chosen.turns), 4),
        "pickled_bytes": {count: len(pickle.dumps(HelloDataset(path))) for count, path in paths.items()},
        "memory_bytes": memory(paths[max(paths)], chosen.epochs, device),
        "label_seconds_a_batch": rounded(labels, 7),
        "lazy_over_float32_seconds": round(median(labels["lazy"]) - median(labels["float32"]), 7),
        "classes": CLASSES,
        "batch": BATCH,
    }
    record_on(device, "loading_start", result, "psutil")


if __name__ == "__main__":
    main()
