"""Train students from one archive by several losses, and record how right each is.

    python tests/benchmarks/losses.py cifar10-ipc10 --folder WORK [--only LOSS ...] [--students 2]

The archive is that of `evaluations.py NAME --folder WORK`, made if it is missing. Students are RDED's but for the loss
of soft labels: KL at a temperature, MSE on logits, or MSE with a tenth of the cross-entropy with the true classes,
which is HeLlO's. Results are added to those of earlier runs.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from common import RESULTS, record
from evaluations import MEASUREMENTS, prepared

from hellods.distill.build import build
from hellods.distill.recipe import Recipe
from hellods.evaluate.evaluate import evaluate
from hellods.evaluate.presets import PRESETS, Protocol
from hellods.evaluate.question import Question

LOSSES = {
    **{f"KL, T = {t}": Protocol(temperature=float(t)) for t in (20, 4, 2, 1)},
    "MSE": Protocol(loss="mse"),
    "MSE, and the true classes": PRESETS["hello"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*MEASUREMENTS])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[*LOSSES], choices=[*LOSSES])
    parser.add_argument("--students", type=int, default=2)
    options = parser.parse_args()
    measurement = MEASUREMENTS[options.name]
    made_from = prepared(measurement, options.folder)
    archive = options.folder / f"{options.name}.hello"
    if not archive.exists():
        build(made_from, Recipe(**measurement.recipe), out=archive)
    name = f"losses_{options.name.replace('-', '_')}"
    kept = RESULTS / f"{name}.json"
    for loss in options.only:
        protocol = replace(LOSSES[loss], epochs=measurement.protocol.epochs, student=measurement.protocol.student)
        question = Question(data=made_from.data, protocol=protocol, arms=("hello",), seeds=options.students)
        report = evaluate([str(archive)], question, options.folder / name / loss)
        found = json.loads(kept.read_text())["students"] if kept.exists() else {}
        students = report["archives"][0]["arms"]["hello"]["accuracy"]["last"]["values"]
        record(name, {"students": found | {loss: students}})


if __name__ == "__main__":
    main()
