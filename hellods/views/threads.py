"""Threads for the steps of a batch that are too short for torch's own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

SHARE: Final = 1 << 18  # values that are worth a thread


def spread(work: Callable[[slice], object], count: int, values: int) -> None:
    """Call `work` on slices that cover 0 to `count`, in as many threads as torch has, each of which computes alone.

    torch's threads wait for each other after every operation. Where one takes microseconds, they gain little on an idle
    CPU, and on one that has other work they take a hundred times as long.

    Args:
        work: on the CPU, and on each slice for itself.
        count: of a batch.
        values: of each, which say how many threads are worth it.
    """
    threads = min(torch.get_num_threads(), count, count * values // SHARE)
    if threads < 2:
        work(slice(0, count))
        return
    step = -(-count // threads)
    inference = torch.is_inference_mode_enabled()  # of this thread alone

    def part(start: int) -> None:
        with torch.inference_mode(inference):
            work(slice(start, start + step))

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(part, range(0, count, step)))
    finally:
        torch.set_num_threads(torch.get_num_threads())  # for threads to come, which would compute alone too
