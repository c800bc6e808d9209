"""One rank of test_distributed.py: torchrun starts it with an archive and a file that it fills, {} being its rank."""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from hellods import HelloDataset, HelloLoader


def main(archive: str, file: str) -> None:
    early = HelloLoader(HelloDataset(archive), 5, shuffle=True)  # as a script for Lightning's Trainer makes it
    torch.distributed.init_process_group("gloo")
    found = {}
    for kind in ("DataLoader", "HelloLoader"):
        torch.manual_seed(0)
        student = DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
        optimizer = torch.optim.Adam(student.parameters(), lr=0.001)
        dataset, seen = HelloDataset(archive), []
        loader = DataLoader(dataset, 5, sampler=DistributedSampler(dataset)) if kind == "DataLoader" else early
        for epoch in range(2):
            if kind == "DataLoader":
                loader.sampler.set_epoch(epoch)
                dataset.set_epoch(epoch)
            else:
                loader.set_epoch(epoch)
            for images, labels in loader:
                labels = labels.to("cpu")
                loss = cross_entropy(student(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append((images, labels))
        found[kind] = {"seen": seen, "student": student.module.state_dict()}
    torch.save(found, file.format(torch.distributed.get_rank()))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
