"""The images of an archive, decoded, as near to a device as its memory allows."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from hellods.data import memory as memories
from hellods.device import CPU, to_device
from hellods.format.archive import Archive
from hellods.format.codecs import decode
from hellods.format.header import Header

logger = logging.getLogger("hellods")


class Store(NamedTuple):
    """Room for all images of an archive, and which of them are there."""

    pixels: Tensor  # uint8 (N, 3, H, W), channels_last on the CPU, as they are decoded
    known: Tensor  # bool (N,), on the CPU


class Images:
    """Images that are decoded when they are first needed, and kept: on the host, and on the device where they fit.

    What the host keeps is one memory for this process and those that it starts, whichever of them decodes. Where the
    host has no room, images are decoded for each batch.

    Attributes:
        memory: of the host; None where it has no room.
    """

    def __init__(
        self, header: Header, open_archive: Callable[[Archive | None], Archive], memory: memories.Shared | None = None
    ) -> None:
        self._facts, self._open = header.images, open_archive
        self._archive: Archive | None = None  # as it was opened last
        self._size = 3 * self._facts.count * self._facts.height * self._facts.width
        self._stores: dict[torch.device, Store | None] = {}
        self._complete: set[torch.device] = set()
        self.memory = memories.reserve(self._size + self._facts.count) if memory is None else memory
        if self.memory is None:
            self._tell(CPU, "they are decoded for each batch made there")

    def complete(self, device: torch.device) -> Tensor | None:
        """Return all images, uint8 (N, 3, H, W) on `device`; None as long as they are not decoded and there."""
        store = self._store(device)
        if store is None:
            return None
        if store.pixels.device in self._complete:
            return store.pixels
        if not store.known.all():
            return None
        if device.type == "cuda":
            torch.cuda.synchronize(store.pixels.device)  # once, and any of its streams may read them
        self._complete.add(store.pixels.device)  # its own: "cuda" may be another GPU from now on
        return store.pixels

    def holding(self, rows: Tensor, device: torch.device) -> Callable[[], Tensor] | None:
        """Return what waits for some images and returns the room of all, uint8 (N, 3, H, W) on `device`.

        Threads begin at once with those that must be decoded.

        Args:
            rows: int64 (B,), on the CPU.

        Returns:
            None where they do not fit.
        """
        store = self._store(device)
        if store is None:
            return None
        missing = torch.unique(rows[~store.known[rows]])
        if not len(missing):
            return lambda: store.pixels
        come = self._decode(missing, store.pixels, missing) if device == CPU else self._carry(missing, store.pixels)

        def images() -> Tensor:
            come()
            store.known[missing] = True
            return store.pixels

        return images

    def some(self, rows: Tensor, device: torch.device) -> Callable[[], Tensor]:
        """Return what waits for images and returns them, uint8 (B, 3, H, W) on `device`, of int64 (B,) rows on the CPU.

        Threads begin at once with those that must be decoded.
        """
        facts, cuda, host = self._facts, device.type == "cuda", self.holding(rows, CPU)
        # A copy from pinned memory runs beside what the GPU computes.
        shape = (len(rows), 3, facts.height, facts.width)
        found = torch.empty(shape, dtype=torch.uint8, device=CPU, pin_memory=cuda, memory_format=torch.channels_last)
        come = self._decode(rows, found, torch.arange(len(rows), device=CPU)) if host is None else None

        def images() -> Tensor:
            if come is not None:
                come()
            if host is not None:
                torch.index_select(host(), 0, rows, out=found)
            return found.to(device, non_blocking=cuda)

        return images

    def _store(self, device: torch.device) -> Store | None:
        device = torch.empty(0, device=device).device  # "cuda" is "cuda:0"
        if device not in self._stores:
            self._stores[device] = self._kept() if device == CPU else self._near(device)
        return self._stores[device]

    @torch.inference_mode(False)  # what is kept is written in any mode
    def _kept(self) -> Store | None:
        if self.memory is None:
            return None
        pixels, known = torch.split(self.memory.bytes, [self._size, self._facts.count])
        rows = pixels.view(self._facts.count, self._facts.height, self._facts.width, 3)
        return Store(rows.permute(0, 3, 1, 2), known.view(torch.bool))

    @torch.inference_mode(False)
    def _near(self, device: torch.device) -> Store | None:
        facts = self._facts
        if self._size > memories.room(device):
            remedy = "they are decoded for each batch" if self.memory is None else "they stay in the host's memory"
            self._tell(device, remedy)
            return None
        pixels = torch.empty(facts.count, 3, facts.height, facts.width, dtype=torch.uint8, device=device)
        return Store(pixels, torch.zeros(facts.count, dtype=torch.bool, device=CPU))

    def _tell(self, device: torch.device, remedy: str) -> None:
        if get_worker_info() is None:
            logger.warning("%d bytes of images are more than %s has room for: %s", self._size, device, remedy)

    def _carry(self, rows: Tensor, pixels: Tensor) -> Callable[[], None]:
        """Begin to bring images of the host to their places in `pixels`, on a device; what is returned ends it."""
        come = self.some(rows, pixels.device)

        def end() -> None:
            pixels[to_device(rows, pixels.device)] = come()

        return end

    def _decode(self, rows: Tensor, pixels: Tensor, places: Tensor) -> Callable[[], None]:
        """Begin to decode images to `places` in `pixels`, on the CPU; what is returned ends it."""
        facts, target = self._facts, pixels.numpy()

        def picture(stream: bytes, where: str, place: int) -> None:
            target[place] = decode(stream, facts.codec, facts.height, facts.width, where).transpose(2, 0, 1)

        worker = get_worker_info()
        threads = (os.cpu_count() or 1) // (1 if worker is None else worker.num_workers)
        pool = ThreadPoolExecutor(max(1, min(8, threads)))  # Pillow decodes without the GIL
        with self._open(self._archive) as archive:
            self._archive = archive
            coming = [
                pool.submit(picture, archive.image(row), f"{archive.name}: image {row}", place)
                for row, place in zip(rows.tolist(), places.tolist(), strict=True)
            ]
        pool.shutdown(wait=False)

        def end() -> None:
            for future in coming:
                future.result()

        return end
