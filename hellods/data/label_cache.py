"""Labels that are made once and kept in memory."""

import logging
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from hellods.device import CPU
from hellods.errors import LabelError

MAX_BYTES: Final = 1 << 30  # of the labels that one data set keeps

logger = logging.getLogger("hellods")


class LabelCache:
    """The labels of rows 0 to `rows` - 1, in float16, on the CPU; rows that exceed MAX_BYTES are made anew each time.

    All labels are rounded to float16, so that a label is the same at first and later, kept or not.
    """

    @torch.inference_mode(False)  # what is kept is written in any mode
    def __init__(self, rows: int, classes: int, source: str) -> None:
        room = min(rows, MAX_BYTES // (2 * classes + 1))
        if room < rows:
            logger.warning(
                "%s: the labels of %d views exceed %d bytes: those of the first %d are kept, the others made anew",
                *(source, rows, MAX_BYTES, room),
            )
        self._values = torch.empty(room, classes, dtype=torch.float16, device=CPU)
        self._known = torch.zeros(room, dtype=torch.bool, device=CPU)

    def get(self, rows: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return float16 (B, K) on the CPU.

        Args:
            rows: int64 (B,).
            make: returns (M, K) for int64 (M,), the positions in `rows` whose labels are not kept.

        Raises:
            LabelError: a label exceeds what float16 holds.
        """
        inside = rows < len(self._known)
        missing = (~(inside & self._known[rows.where(inside, 0)])).nonzero()[:, 0]
        values = torch.empty(len(rows), self._values.shape[1], dtype=torch.float16, device=CPU)
        if len(missing):
            values[missing] = make(missing).to("cpu", torch.float16)
            if not values[missing].isfinite().all():
                raise LabelError(
                    "a label exceeds 65504, the largest that is kept (float16), or is not finite: take labels='soft', "
                    "or views that do not repeat (without views=, view=None and train=False)"
                )
            new = missing[inside[missing]]
            self._values[rows[new]] = values[new]
            self._known[rows[new]] = True
        # Read back, since a row that stands twice in a batch was made twice.
        values[inside] = self._values[rows[inside]]
        return values
