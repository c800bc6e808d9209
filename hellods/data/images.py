"""The images of an archive, decoded, as near to a device as its memory allows."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from hellods.data.lazy import CPU
from hellods.format.archive import Archive
from hellods.format.codecs import decode
from hellods.format.header import Header

UNKNOWN: Final = 1 << 62  # bytes; where the system does not say, all images are tried

logger = logging.getLogger("hellods")


def room(device: torch.device) -> int:
    """Return how many bytes of images a process may keep: half of a GPU's free memory, a quarter of the machine's.

    The workers of a DataLoader share a quarter. Decoding takes twice the room for a moment.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 2
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else UNKNOWN
    worker = get_worker_info()
    return memory // 4 // (1 if worker is None else 1 + worker.num_workers)


class Images:
    """All images on the device if they fit there, else all in the host's memory, else decoded for each batch."""

    def __init__(self, header: Header, open_archive: Callable[[], Archive]) -> None:
        self._facts, self._open = header.images, open_archive
        self._whole: dict[torch.device, Tensor | None] = {}

    def whole(self, device: torch.device) -> Tensor | None:
        """Return all images, uint8 (N, 3, H, W) on `device`, decoded once; None where they do not fit."""
        device = torch.empty(0, device=device).device  # "cuda" is "cuda:0"
        if device not in self._whole:
            self._whole[device] = self._load(device)
        return self._whole[device]

    def some(self, rows: Tensor, device: torch.device) -> Callable[[], Tensor]:
        """Return what returns images, uint8 (B, 3, H, W) on `device`, of int64 (B,) rows on the CPU.

        If they must be decoded, threads begin with it at once.
        """
        host, cuda = self.whole(CPU), device.type == "cuda"
        collect = self._decoded(rows) if host is None else partial(torch.index_select, host, 0, rows)

        def images() -> Tensor:
            # A copy from pinned memory runs beside what the GPU computes.
            found = torch.empty(len(rows), 3, self._facts.height, self._facts.width, dtype=torch.uint8, pin_memory=cuda)
            return collect(out=found).to(device, non_blocking=cuda)

        return images

    def _load(self, device: torch.device) -> Tensor | None:
        facts = self._facts
        size = 3 * facts.count * facts.height * facts.width
        if size > room(device):
            remedy = "they are decoded for each batch" if device == CPU else "they stay in the host's memory"
            if get_worker_info() is None:
                logger.warning("%d bytes of images are more than %s has room for: %s", size, device, remedy)
            return None
        if device != CPU:
            host = self.whole(CPU)
            return None if host is None else host.to(device)
        with self._open() as archive:
            return torch.from_numpy(archive.pixels()).permute(0, 3, 1, 2).contiguous()

    def _decoded(self, rows: Tensor) -> Callable[..., Tensor]:
        facts = self._facts

        def picture(stream: bytes, where: str) -> Tensor:
            return torch.tensor(decode(stream, facts.codec, facts.height, facts.width, where)).permute(2, 0, 1)

        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        with self._open() as archive:
            coming = [pool.submit(picture, archive.image(row), f"{archive.name}: image {row}") for row in rows.tolist()]
        pool.shutdown(wait=False)
        return lambda out: torch.stack([future.result() for future in coming], out=out)
