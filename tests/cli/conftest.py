"""An archive written by hand, for what needs no labels."""

import struct
from pathlib import Path

import numpy as np
import pytest

from hellods.format.archive import write
from hellods.format.codecs import encode
from hellods.format.header import Header, Images
from hellods.format.streams import image_sections


@pytest.fixture(scope="session")
def archive_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four PNG images of 8 px in two classes, without a projector; a class name tries to clear the screen."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    header = Header(
        name="colors",
        created_by="a test",
        source={"name": "noise", "images": 4},
        classes=("warm", "cold\x1b[2J"),
        images=Images(count=4, codec="png", height=8, width=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        views={"size": 8, "flip": True},
        projector=None,
        teacher={"architecture": "convnet3", "held_out_accuracy": "0.9"},
        recipe={"images_per_class": 2, "side": None},
        metrics={"agreement_on_views": "0.8"},
    )
    sections = image_sections([encode(image, "png", None) for image in pixels])
    path = tmp_path_factory.mktemp("archive") / "colors.hello"
    write(path, header, sections | {"targets": struct.pack("<4I", 0, 0, 1, 1)})
    return path
