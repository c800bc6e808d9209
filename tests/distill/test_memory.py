"""A build's memory does not grow with the number of real images, beyond the gigabyte of them that it keeps decoded."""

import subprocess
import sys
from pathlib import Path

import pytest

from hellods.sources.source import KEPT

SCRIPT = """
import resource, sys
from pathlib import Path

import torch
from hellods import Inputs, Recipe
from hellods.distill import arrange
from hellods.distill.build import build
from hellods.sources import source

NET = '''
import torch
class Bright(torch.nn.Module):
    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)
def net():
    return Bright()
'''

class Virtual(source.Source):
    def __init__(self, count):
        super().__init__("virtual", ("dark", "bright"), [index % 2 for index in range(count)])
    def image(self, index):
        return torch.full((3, 32, 32), 200 * (index % 2) + index % 50, dtype=torch.uint8)
    def check(self, progress=None, *, decode=True):
        pass
    def provenance(self):
        return {"name": "virtual", "images": len(self)}

folder = Path(sys.argv[1])
(folder / "net.py").write_text(NET)
torch.set_num_threads(1)
ASKED = {
    "given": (1_000_000, dict(teacher=f"{folder / 'net.py'}:net", teacher_mean=(0.5,) * 3), dict(assistant="none")),
    "trained": (100_000, dict(allow_weak_teacher=True), dict(side=8, teacher_epochs=1)),
}
many, teacher, training = ASKED[sys.argv[2]]
source.KEPT = int(sys.argv[3])
for count in (1_000, many):
    arrange.open_source = lambda data, seed: (Virtual(count), Virtual(100))
    recipe = Recipe(images_per_class=2, candidates=10, fit_views=512, **training)
    build(Inputs(data="virtual", **teacher), recipe, out=folder / f"{count}.hello")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def growth(*arguments: str | Path) -> int:
    """Return by how many bytes the memory of a build of many images exceeds that of one of a thousand."""
    run = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    few, many = (int(line) * (1 if sys.platform == "darwin" else 1024) for line in run.stdout.split())
    return many - few


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is not there")
def test_a_million_images_of_three_gigabytes_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    assert growth(tmp_path, "given", str(KEPT)) < 150_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is not there")
def test_training_on_three_hundred_megabytes_of_images_keeps_none_of_them(tmp_path: Path) -> None:
    assert growth(tmp_path, "trained", "0") < 100_000_000
