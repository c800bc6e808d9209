"""What the benchmarks share: where results go, and what is said of the machine."""

import json
import os
import shlex
import sys
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def shared() -> Path:
    """Return the folder of real data and trained weights: $HELLODS_SHARED, else ../shared."""
    folder = Path(os.environ.get("HELLODS_SHARED", Path(__file__).parents[3] / "shared"))
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder; set HELLODS_SHARED to the one with the real data")
    return folder


def record(name: str, result: dict[str, Any]) -> None:
    """Write results/NAME.json with the date, the hardware, the versions and the command, and print it."""
    import torch

    from hellods.device import processor

    # Where the user keeps things is nobody else's business.
    told = ["WORK" if before == "--folder" else Path(word).name for before, word in pairwise(sys.argv)]
    facts = {
        "date": date.today().isoformat(),
        "command": shlex.join(["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *told]),
        "hardware": f"{processor()}, {torch.get_num_threads()} threads",
        "versions": {package: version(package) for package in ("hellods", "torch", "torchvision", "open_clip_torch")},
    }
    text = json.dumps(facts | result, indent=2) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text)
    print(text)
