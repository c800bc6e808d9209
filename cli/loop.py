"""The training loop that a build prints and the README shows."""

import json

from hellods.distill.recipe import usual_network

LOOP = """\
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from hellods import HelloDataset
from hellods.nets import create

device = "cuda" if torch.cuda.is_available() else "cpu"
dataset = HelloDataset({arguments}, temperature=4)
loader = DataLoader(dataset, batch_size=50, shuffle=True)
model = create({network}, classes=len(dataset.classes), side={side}).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)

for epoch in range(100):
    for images, labels in loader:  # labels are soft, made on first use
        images, labels = images.to(device), labels.to(device)
        loss = cross_entropy(model(images) / dataset.temperature, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {{epoch}}: loss {{loss.item():.3f}}")
"""


def loop(path: str, side: int, base: str | None = None) -> str:
    """Return the loop for an archive, with a network for images of that side, and the base model if it needs one."""
    arguments = quoted(path) + (f", base={quoted(base)}" if base else "")
    return LOOP.format(arguments=arguments, side=side, network=quoted(usual_network(side)))


def quoted(text: str) -> str:
    """Return text as Python writes it."""
    return json.dumps(text, ensure_ascii=False)
