"""check_apart(): held-out images are no copies of those to learn from."""

import logging

import numpy as np

from hellods.errors import SourceError
from hellods.sources.folders import shorten
from hellods.sources.source import Folder, Source

logger = logging.getLogger("hellods")


def check_apart(source: Source, held_out: Source) -> None:
    """Check that images which are held out are no copies of those to learn from; both were checked.

    Raises:
        SourceError: half of them or more are; of fewer a warning tells.
    """
    if not (isinstance(source, Folder) and isinstance(held_out, Folder)):  # a set that is known holds no copies
        return
    copies = np.flatnonzero(np.isin(held_out.contents, source.contents)).tolist()
    if not copies:
        return
    names = shorten([held_out.files[index] for index in copies])
    fault = f"{held_out.root}: {len(copies)} of {len(held_out)} images are also among those to learn from: {names}"
    if 2 * len(copies) >= len(held_out):
        raise SourceError(f"{fault}; hold out others, or no accuracy means anything")
    logger.warning("%s; accuracies count them as if they were new", fault)
