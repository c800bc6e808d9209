"""Write the tables of the README, and of the one beside this file, from the numbers in results/.

    python tests/benchmarks/tables.py

Between `<!-- table: NAME -->` and `<!-- end of table -->` stands what TABLES[NAME] makes of results/.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from scipy.stats import spearmanr

from hellods.distill.recipe import RANK, Recipe
from hellods.evaluate.arms import ARMS
from hellods.labels.config import OWN as BASES

DOCUMENTS = (Path(__file__).resolve().parents[2] / "README.md", Path(__file__).resolve().parent / "README.md")
RESULTS = Path(__file__).resolve().parent / "results"
BUILDS = {
    "build_cifar10_ipc10": "CIFAR-10, `best`",
    "build_cifar100_ipc10": "CIFAR-100",
    "build_imagenette_tiny_ipc10": "Imagenette",
    "build_imagenette_best_ipc10": "Imagenette, `best`",
    "build_imagenette_ipc10": "Imagenette, MobileNetV2",
    "digits": "digits",
    "cifar10": "CIFAR-10, earlier",
    "imagenette": "Imagenette, earlier",
}
OWN = {
    "evaluate_cifar10_best_ipc1": "CIFAR-10, 1 a class",
    "evaluate_cifar10_best_ipc10": "CIFAR-10, 10",
    "evaluate_digits": "digits, 10",
}
GIVEN = {
    "evaluate_cifar10_ipc1": "CIFAR-10, 1 a class",
    "evaluate_cifar10_ipc10": "CIFAR-10, 10",
    "evaluate_cifar10_ipc50": "CIFAR-10, 50",
    "evaluate_cifar100_ipc1": "CIFAR-100, 1",
    "evaluate_cifar100_ipc10": "CIFAR-100, 10",
    "evaluate_imagenette_tiny_ipc1": "Imagenette, 1",
    "evaluate_imagenette_tiny_ipc10": "Imagenette, 10",
    "evaluate_imagenette_best_ipc10": "Imagenette, 10, `best`",
    "evaluate_imagenette_ipc10": "Imagenette, 10, MobileNetV2",
}
SUMMARY = {
    "evaluate_cifar10_ipc1": "CIFAR-10, 1",
    "evaluate_cifar10_ipc10": "CIFAR-10, 10",
    "evaluate_cifar10_ipc50": "CIFAR-10, 50",
    "evaluate_cifar100_ipc1": "CIFAR-100, 1",
    "evaluate_cifar100_ipc10": "CIFAR-100, 10",
    "evaluate_imagenette_tiny_ipc1": "Imagenette, 1",
    "evaluate_imagenette_best_ipc10": "Imagenette, 10",
}
CONVNET = {
    "CIFAR-10, 10": "evaluate_cifar10_convnet_ipc10",
    "CIFAR-10, 50": "evaluate_cifar10_convnet_ipc50",
}
ALONE = {
    "evaluate_cifar10_alone_ipc1": "CIFAR-10, 1 a class",
    "evaluate_cifar10_alone_ipc10": "CIFAR-10, 10",
    "evaluate_cifar10_alone_ipc50": "CIFAR-10, 50",
    "evaluate_imagenette_alone_ipc1": "Imagenette, 1",
    "evaluate_imagenette_alone_ipc10": "Imagenette, 10",
}
ARITHMETIC = {"float32": "", "bfloat16": "_bf16", "bfloat16 in matrix units": "_amx"}


def results(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return value


def builds() -> str:
    """Return a column for each build: what it was made from, its bytes by part, agreement, minutes."""
    made = {title: results(name) for name, title in BUILDS.items()}
    lines = {
        "real images, and side of the stored ones": lambda r: f"{r['real_images']:,}, {r['side']} px",
        "base model of the projector": lambda r: f"`{r['base']}`",
        "fitted on": lambda r: (
            f"{views_of(r['recipe']):,} views of {'its own' if r['recipe'].get('fit_on') == 'own' else 'real'} images"
        ),
        "its deltas: rank, stored as": lambda r: (
            f"{r['recipe']['encoder_rank']}, {r['recipe'].get('quantization', 'fp16')}"
        ),
        "bytes: images": lambda r: f"{r['bytes']['images']:,}",
        "bytes: projector": lambda r: f"{r['bytes']['projector']:,}",
        "bytes: all else": lambda r: f"{r['bytes']['rest']:,}",
        "bytes: base model, not in the file": lambda r: f"{r['bytes']['base']:,}",
        "teacher, accuracy on held-out images": lambda r: percent(r["teacher_held_out_accuracy"]),
        "projector, the same": lambda r: percent(r["projector_held_out_accuracy"]),
        "projector agrees with teacher, held-out images": lambda r: percent(r["agreement_on_held_out_images"]),
        "projector agrees with teacher, views of the file": lambda r: percent(r["agreement_on_views"]),
        "projector agrees with assistant, the same views": lambda r: (
            percent(r["agreement_with_assistant_on_views"]) if "agreement_with_assistant_on_views" in r else ""
        ),
    }
    return markdown(
        ["10 images a class", *made],
        [[label, *map(cell, made.values())] for label, cell in lines.items()],
    )


def views_of(recipe: dict[str, Any]) -> int:
    """Return how many views a projector was fitted on; older builds called them images."""
    return int(recipe["fit_views"] if "fit_views" in recipe else recipe["fit_images"])


def evaluations(titles: Mapping[str, str], sized: str, rivals: Mapping[str, str] | None = None) -> str:
    """Return a row for each arm, a column for each archive: the student's accuracy, mean and deviation of the seeds.

    The last column has the bytes of the archive of that title; a row more is of `rivals`, title -> evaluation: images
    that another teacher chose and labels as training goes.
    """
    archives = {title: results(name)["archives"][0]["arms"] for name, title in titles.items()}
    arms = {arm: value["says"] for found in archives.values() for arm, value in found.items()}
    rows = []
    for arm in (arm for arm in ARMS if arm in arms):
        found = [spread(archive[arm]["accuracy"]["last"]) if arm in archive else "" for archive in archives.values()]
        value = archives[sized].get(arm)
        size = f"{sum(value['bytes'].values()):,}" if value else ""
        rows.append([f"`{arm}`: {arms[arm]}", *found, size])
    if rivals:
        others = {title: results(name)["archives"][0] for title, name in rivals.items()}
        accuracy = percent(float(others[sized]["teacher"]["held_out_accuracy"]))
        arms_of = {title: other["arms"]["teacher"] for title, other in others.items()}
        row = [
            f"a ConvNet-3 of {accuracy}, distilled from the ResNet-20, chooses the images and labels them, as in RDED"
        ]
        row += [spread(arms_of[title]["accuracy"]["last"]) if title in others else "" for title in archives]
        rows.append([*row, f"{sum(arms_of[sized]['bytes'].values()):,}"])
    alike = [archive["hello"]["fidelity"] for archive in archives.values()]
    same = [f"{100 * found['agreement']:.1f}" for found in alike]
    rows.append(["views with the teacher's likeliest class, in %", *same, ""])
    rows.append(["KL from the teacher on these, in nats", *[f"{f['kl']['1']:.3f}" for f in alike], ""])
    made = [built(name) for name in titles]
    if any(made):
        rows.append(["base model of the label maker", *[f"`{facts['base']}`" if facts else "" for facts in made], ""])
        cells = [f"{b['bytes']['projector']:,}, rank {b['recipe']['encoder_rank']}" if b else "" for b in made]
        rows.append(["its bytes, rank of its deltas", *cells, ""])
    return markdown(["accuracy in %", *archives, f"bytes, {sized}"], rows)


def summary() -> str:
    """Return a row for each archive: what students learn from its labels, from others, and what it weighs."""
    rows = []
    for name, title in SUMMARY.items():
        arms = results(name)["archives"][0]["arms"]
        rival = results(CONVNET[title])["archives"][0]["arms"]["teacher"] if title in CONVNET else None
        accuracies = [arms["hello"], arms.get("teacher"), arms.get("hard"), rival]
        cells = [spread(arm["accuracy"]["last"]) if arm else "" for arm in accuracies]
        sizes = [f"{arms['hello']['bytes'][part] / 1000:,.0f} kB" for part in ("images", "labels")]
        rows.append([title, *cells, *sizes])
    columns = [
        "the file's labels",
        "the given teacher's, made as training goes",
        "true classes alone",
        "a ConvNet-3's, kept in training (RDED's way)",
        "images",
        "projector",
    ]
    return markdown(["accuracy in %, images a class", *columns], rows)


def built(evaluated: str) -> dict[str, Any] | None:
    """Return the facts of the archive that was evaluated, where they were recorded."""
    name = evaluated.replace("evaluate", "build")
    if not (RESULTS / f"{name}.json").exists():
        return None
    facts = results(name)
    assert facts["content_id"] == results(evaluated)["archives"][0]["content_id"], f"{name}: of another archive"
    return facts


def spread(value: dict[str, Any]) -> str:
    """Return mean ± deviation, in percent."""
    return f"{100 * value['mean']:.1f}" + ("" if value["std"] is None else f" ± {100 * value['std']:.1f}")


def base() -> str:
    """Return a row for each base model of the package: its size, and how much it knows from text alone."""
    measured = {name: results(name.replace("-", "_")) for name in BASES}
    return markdown(
        ["base model in the package", "parameters of its image tower", "CIFAR-100 test images named from text alone"],
        [
            [f"`{name}`", f"{facts['image_tower_parameters']:,}", percent(facts["cifar100_test_top1_from_text"])]
            for name, facts in measured.items()
        ],
    )


def images() -> str:
    """Return a row for each way to load images: how many a second, and how many times as fast as ImageFolder."""
    measured = results("loading_images")
    codecs = {codec: measured[codec]["ways"] for codec in ("jpeg", "avif")}
    rows = [
        [name, *(rate(codecs[codec][name][kind]) for codec in codecs for kind in ("first", "later"))]
        for name in codecs["jpeg"]
    ]
    limits = [measured[codec]["limits_images_a_second"].values() for codec in codecs]
    cells = [f"{value:,.0f}" for pair in limits for value in pair]
    rows.append(["limit: decoding on all cores, then writing float32", *cells])
    columns = [f"{codec.upper()}, {kind} epoch" for codec in codecs for kind in ("first", "later")]
    return markdown(["images a second (times ImageFolder)", *columns], rows)


def rate(value: dict[str, Any]) -> str:
    return f"{median(value['images_a_second']):,.0f} ({value['times_image_folder']:.1f})"


def labels() -> str:
    """Return a row for each tower: labels a second of the merged projector, and how many times as fast it is."""
    others = {
        "open_clip": "times open_clip",
        "channels-last": "times open_clip in channels-last",
        "adapters": "times adapters unmerged",
        "autocast": "times open_clip under autocast",
    }
    rows = []
    for tower, measured in results("loading_labels")["towers"].items():
        ways = measured["ways"]
        eager = median(ways["open_clip, fp32"]["images_a_second"])
        for precision in ("fp32", "bf16"):
            ours = ways[f"merged, {precision}"]
            row = [f"{tower}, {precision}", f"{median(ours['images_a_second']):,.1f}"]
            for way in others:
                other = ways.get(f"{way}, {precision}")
                row.append(f"{ours['times_open_clip'] / other['times_open_clip']:.2f}" if other else "")
            row += [f"{median(ours['images_a_second']) / eager:.2f}", f"{100 / ours['times_floor']:.0f} %"]
            rows.append(row)
    columns = ["labels a second", *others.values(), "times open_clip in fp32", "of a matrix product's rate"]
    return markdown(["views of 224 px", *columns], rows)


def epoch(alone: bool = False) -> str:
    """Return a row for each kind of label: what a student's epoch takes, against hard labels, in each arithmetic.

    Args:
        alone: by what the loader takes when nobody learns.
    """
    kinds = {
        "hard": "hard labels",
        "kept": "soft labels, views=10, after the tenth epoch",
        "fresh, hello-tiny": "soft labels of fresh views, by a projector on `hello-tiny` at 64 px",
        "fresh, mobilenetv2-in1k, fp32": "the same, on a MobileNetV2 at 224 px",
        "fresh, mobilenetv2-in1k, fp32, compiled": "the same, compiled (`compile=True`)",
        "fresh, mobilenetv2-in1k, bf16": "on a MobileNetV2, labels in bfloat16 (`--label-precision bf16`)",
        "fresh, mobilenetv2-in1k, bf16, compiled": "the same, compiled",
        "files": "soft labels and views read from files, images from JPEG files",
    }
    measured = {kind: results(f"loading_epoch{suffix}") for kind, suffix in ARITHMETIC.items()}
    least = measured["float32"]["times_hard_by_operations"]

    def cell(found: dict[str, Any], kind: str) -> str:
        if kind not in found["times_hard_quartiles"]:
            return ""
        if alone or kind == "hard":
            return f"{found['times_hard_without_student'][kind]:.2f}"
        low, middle, high = found["times_hard_quartiles"][kind]
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    rows = [
        [says, *(cell(found, kind) for found in measured.values()), f"{least[kind]:.2f}" if kind in least else ""]
        for kind, says in kinds.items()
        if any(kind in found["times_hard_quartiles"] for found in measured.values())
    ]
    columns = [f"students in {kind}" for kind in measured]
    return markdown(["an epoch of a ResNet-18 at 224 px, in epochs of hard labels", *columns, "by operations"], rows)


def profile() -> str:
    """Return a row for each part of a step: its seconds, its share, and how near it is to what the hardware allows."""
    measured = {kind: results(f"loading_profile{suffix}") for kind, suffix in ARITHMETIC.items()}
    columns: list[str] = []
    rows: dict[str, list[str]] = {}
    for kind, found in measured.items():
        parts = {name: median(values) for name, values in found["seconds"].items()}
        whole = parts.pop("a whole step")
        columns += [f"student in {kind}: milliseconds", "share", "least, by the hardware's rates"]
        for name, value in (parts | {"all of these": sum(parts.values()), "a whole step": whole}).items():
            least = found["limit_seconds"].get(name)
            shown = f"{1000 * value:.1f}", f"{100 * value / whole:.1f} %", f"{1000 * least:.1f}" if least else ""
            rows.setdefault(name, [name]).extend(shown)
    return markdown(["a step of 32 images at 224 px", *columns], list(rows.values()))


def start() -> str:
    """Return a row for each cost of a data set beside its images: the first batch, pickling, memory, lazy labels."""
    measured = results("loading_start")
    first = {name: f"{median(values):.2f} s" for name, values in measured["first_batch_seconds"].items()}
    rows = [
        [f"first batch with labels, {way}", first[f"{way}, 10"], first[f"{way}, 10000"]]
        for way in ("HelloLoader", "DataLoader", "HelloLoader in a fresh process")
    ]
    sizes = measured["pickled_bytes"]
    rows.append(["data set, pickled", f"{sizes['10']:,} bytes", f"{sizes['10000']:,} bytes"])
    held = [epoch["in_all"] for epoch in measured["memory_bytes"]]
    rows += [
        [f"memory of parent and workers after epoch {number}", "", f"{held[number - 1] / 1e9:.2f} GB"]
        for number in (1, len(held))
    ]
    parent, *workers = measured["memory_bytes"][-1]["alone"]
    alone = f"{parent / 1e6:,.0f} and {max(workers) / 1e6:,.0f} MB"
    rows.append([f"of it what parent and worker hold alone, after epoch {len(held)}", "", alone])
    for kind, label in (("lazy", "lazy labels"), ("float32", "float32 labels")):
        taken = 1000 * median(measured["label_seconds_a_batch"][kind])
        rows.append(
            [f"{label}, {measured['batch']} of {measured['classes']:,} classes, handed on", "", f"{taken:.2f} ms"]
        )
    return markdown(["data sets of 10 and of 10,000 images", "10", "10,000"], rows)


def shapes() -> str:
    """Return a row for each tower and its ranks: the bytes of its deltas, and what full labels are times as large."""
    rows = [
        [
            f"{found['base']}, ranks {found['ranks'][0]} and {found['ranks'][1]}",
            *(f"{found[f'bytes_{kind}']:,}" for kind in ("fp16", "int8", "int4")),
            f"{100 * found['share_of_full_labels']:.5f} %",
        ]
        for found in results("shapes")["shapes"]
    ]
    return markdown(["1,000 classes", "fp16", "int8", "int4", "int4, of full labels"], rows)


PUBLISHED = {  # by RDED (arXiv 2312.03526), on all of each set; Imagenette at 224 px
    "CIFAR-10, 1": 23.5,
    "CIFAR-10, 10": 50.2,
    "CIFAR-10, 50": 68.4,
    "CIFAR-100, 1": 19.6,
    "CIFAR-100, 10": 48.1,
    "Imagenette, 1": 35.8,
    "Imagenette, 10": 61.4,
}
HOW = {  # how the labels of a MobileNetV2 are made
    "fresh, mobilenetv2-in1k, fp32": "",
    "fresh, mobilenetv2-in1k, fp32, compiled": ", compiled",
    "fresh, mobilenetv2-in1k, bf16": ", in bfloat16",
    "fresh, mobilenetv2-in1k, bf16, compiled": ", compiled and in bfloat16",
}


def aims() -> str:
    """Return a row for each aim that can be measured here: what was wanted, what was reached, and if it is missed."""
    rows = []

    def add(aim: str, wanted: str, reached: str, met: bool) -> None:
        rows.append([aim, wanted, reached if met else f"{reached}, missed"])

    for name, title in SUMMARY.items():
        arms, count = results(name)["archives"][0]["arms"], int(title.split()[-1])
        ours, theirs = (100 * arms[arm]["accuracy"]["last"]["mean"] for arm in ("hello", "teacher"))
        least, published, found = 5 if count <= 10 else 0, PUBLISHED[title], spread(arms["hello"]["accuracy"]["last"])
        aim = f"points above the given teacher's labels, {title} a class"
        add(aim, f"{least} or more", f"{ours - theirs:.1f}", ours - theirs >= least)
        aim = f"accuracy in %, {title} a class, images chosen RDED's way"
        add(aim, f"above {published}, RDED's", found, ours > published)
    sizes = [results(name)["archives"][0]["arms"]["hello"]["bytes"]["labels"] for name in SUMMARY]
    reached = f"{min(sizes):,} to {max(sizes):,}"
    add("bytes of a label maker, 10 classes, or 100", "below 60,000", reached, max(sizes) < 60_000)
    for found in results("shapes")["shapes"]:
        if found["ranks"] == [RANK, Recipe().head_rank]:
            size, share = found["bytes_int4"], 100 * found["share_of_full_labels"]
            aim = f"bytes, 1,000 classes, {found['base']}, and share of full labels"
            add(aim, "524,288, 0.0005 %", f"{size:,}, {share:.5f} %", size < 524_288 and share < 0.0005)
    loaded = results("loading_images")
    for way in ("HelloLoader", "HelloDataset, DataLoader"):
        for kind, least in (("first", 1), ("later", 5)):
            ratios = [loaded[codec]["ways"][way][kind]["times_image_folder"] for codec in ("jpeg", "avif")]
            aim = f"images, times ImageFolder, {way}, {kind} epoch, JPEG and AVIF"
            add(aim, f"{least} or more", " and ".join(f"{ratio:.1f}" for ratio in ratios), min(ratios) >= least)
    arithmetic = {kind: results(f"loading_epoch{suffix}") for kind, suffix in ARITHMETIC.items()}
    most = arithmetic["float32"]["times_hard_by_operations"]["fresh, mobilenetv2-in1k, fp32"] + 0.1
    for kind, measured in arithmetic.items():
        middle = {name: quartiles[1] for name, quartiles in measured["times_hard_quartiles"].items()}
        fresh, how = min((middle[name], how) for name, how in HOW.items() if name in middle)
        aim = f"an epoch of fresh MobileNetV2 labels{how}, hard ones 1, {kind}"
        add(aim, f"{most:.2f} or less", f"{fresh:.2f}", fresh <= most)
        add(f"the same with kept labels, {kind}", "1.03 or less", f"{middle['kept']:.2f}", middle["kept"] <= 1.03)
        tiny, files = middle["fresh, hello-tiny"], middle["files"]
        aim = f"labels from files; fresh ones of `hello-tiny`, of that MobileNetV2, {kind}"
        add(aim, "files slower", f"{files:.2f}; {tiny:.2f} and {fresh:.2f}", files > max(tiny, fresh))
    beside = max(size - 4 * int(images) for images, size in results("loading_start")["pickled_bytes"].items())
    add("bytes of a data set, pickled, beside 4 an image", "below 2,000", f"{beside:,}", beside < 2000)
    return markdown(["aim", "wanted", "reached"], rows)


def choices() -> str:
    """Return a row for each way to choose images, what students learn from one and from ten a class."""
    found = {count: results(f"choices_ipc{count}")["students"] for count in (1, 10)}

    rows = [[name, *(each(of.get(name)) for of in found.values())] for name in found[1]]
    return markdown(["images of CIFAR-10", "one a class, students 0 to 2: their mean", "ten a class"], rows)


def stored() -> str:
    """Return a row for each way to store images: their bytes, and what students learn from them."""
    files = {
        "CIFAR-10, 1 a class": "stored_images_ipc1",
        "CIFAR-10, 10": "stored_images_ipc10",
        "Imagenette, 10": "imagenette_stored_images_ipc10",
    }
    found = {name: results(file)["stored"] for name, file in files.items()}

    def cells(way: dict[str, Any] | None) -> list[str]:
        return [f"{way['bytes']:,}", each(way["students"])] if way else ["", ""]

    ways = dict.fromkeys(way for of in found.values() for way in of)
    rows = [[way, *(cell for of in found.values() for cell in cells(of.get(way)))] for way in ways]
    head = [cell for name in found for cell in (f"bytes, {name}", "students: their mean")]
    return markdown(["stored as", *head], rows)


def losses() -> str:
    """Return a row for each loss of soft labels, and what students learn by it; the best one first."""
    found = results("losses_cifar10_ipc10")["students"]
    rows = [[name, each(found[name])] for name in sorted(found, key=lambda name: -mean(found[name]))]
    return markdown(["loss of soft labels", "students 0 and 1: their mean"], rows)


def each(students: list[float] | None) -> str:
    """Return the accuracy of each student, and their mean."""
    if not students:
        return ""
    return f"{', '.join(f'{100 * value:.1f}' for value in students)}: {100 * mean(students):.1f}"


def fits() -> str:
    """Return a row for each change of a fit: how near the projector comes to the assistant, and its bytes."""
    rows = [
        [
            name,
            percent(found["agreement"]),
            f"{found['kl']['1']:.3f}",
            f"{1000 * found['kl']['20']:.2f}",
            f"{found['bytes']:,}",
            ", ".join(f"{100 * value:.1f}" for value in found["students"]),
        ]
        for name, found in results("fits_ipc10")["fits"].items()
    ]
    return markdown(["fit", "views as the assistant", "KL, T = 1", "1,000 × KL, T = 20", "bytes", "students"], rows)


def stages() -> str:
    """Return a row for each part of an assistant's training, a column for each number of images a class."""
    found = results("stages")["of"]["12 epochs"]
    counts = sorted(found, key=int)
    rows = []
    for name in dict.fromkeys(name for count in counts for name in found[count]):
        held = {count: found[count].get(name) for count in counts}
        score = next(facts["accuracy"] for facts in held.values() if facts)
        cells = [f"{100 * mean(facts['students']):.1f}" if facts else "" for facts in held.values()]
        rows.append([name, percent(score), *cells])
    for key, says in (("accuracy", "right"), ("loss", "far from its labels")):
        cells = [foretold(list(found[count].values()), key) for count in counts]
        rows.append([f"rank correlation with how {says} a student is that has a tenth of the epochs", "", *cells])
    return markdown(["label maker", "it is right on", *(f"{n} a class" for n in counts)], rows)


def foretold(makers: list[dict[str, Any]], key: str) -> str:
    """Return Spearman's correlation of what label makers teach with what a short training shows of each."""
    known = [facts for facts in makers if "after_a_tenth" in facts]
    if len(known) < 5:
        return ""
    taught = [mean(facts["students"]) for facts in known]
    return f"{spearmanr(taught, [facts['after_a_tenth'][key] for facts in known]).statistic:.2f}"


TABLES: dict[str, Callable[[], str]] = {
    "aims": aims,
    "summary": summary,
    "builds": builds,
    "own": partial(evaluations, OWN, "CIFAR-10, 10"),
    "given": partial(evaluations, GIVEN, "CIFAR-10, 10", CONVNET),
    "alone": partial(evaluations, ALONE, "CIFAR-10, 10"),
    "base": base,
    "images": images,
    "labels": labels,
    "epoch": epoch,
    "epoch-alone": partial(epoch, alone=True),
    "profile": profile,
    "start": start,
    "shapes": shapes,
    "fits": fits,
    "choices": choices,
    "stored": stored,
    "stages": stages,
    "losses": losses,
}


def filled(text: str) -> str:
    """Return a document with every table made anew."""
    pattern = r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)"
    return re.sub(pattern, lambda found: found[1] + TABLES[found[2]]() + found[3], text, flags=re.DOTALL)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text()))
