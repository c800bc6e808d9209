"""A build's memory does not grow with the number of real images, beyond the gigabyte of them that it keeps decoded."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from pathlib import Path

import torch
from hellods import Inputs, Recipe
from hellods.distill import arrange
from hellods.distill.build import build
from hellods.sources.source import Source

NET = '''
import torch
class Bright(torch.nn.Module):
    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)
def net():
    return Bright()
'''

class Virtual(Source):
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
for count in (1_000, 1_000_000):
    arrange.open_source = lambda data, seed: (Virtual(count), Virtual(100))
    inputs = Inputs(data="virtual", teacher=f"{folder / 'net.py'}:net", teacher_mean=(0.5,) * 3)
    recipe = Recipe(images_per_class=2, candidates=10, fit_views=512, assistant="none")
    build(inputs, recipe, out=folder / f"{count}.hello")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is not there")
def test_a_million_images_of_three_gigabytes_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], check=True, stdout=subprocess.PIPE, text=True)
    few, many = (int(line) * (1 if sys.platform == "darwin" else 1024) for line in run.stdout.split())
    assert many - few < 150_000_000
