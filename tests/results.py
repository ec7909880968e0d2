"""What medbook reaches on real images: `python -m tests.results [SECTION ...]` trains seeds 0, 1, 2
and writes RESULTS.md.

The sections are the data sets on which `medbook train` runs by default; "numpy", chapter 2.9's
network; "coverage", the intervals of chapters 3.3 and 3.5 on simulated studies; "imbalance-bccd",
"imbalance-phantoms", the strategies of chapter 4.5. Nothing is chosen here: `medbook train`
chooses its threshold on valid and reads test once; "numpy" is looked at on valid alone. Needs
MEDBOOK_DATA.
"""

import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from medbook.evaluation.intervals import auc_interval
from medbook.evaluation.predictions import evaluate_table, read_predictions
from medbook.foundations.backprop import digits_double
from medbook.foundations.optimizers import train
from medbook.images import load
from medbook.training.imbalance import STUDIES, imbalance_study
from tests import coverage

OFFICIAL = {  # MedMNIST v2, AUC / accuracy: Yang et al. (2023), Scientific Data 10:41, table 3
    "pneumoniamnist": {
        "ResNet-18 (28)": (0.944, 0.854),
        "ResNet-50 (224)": (0.962, 0.884),
        "Google AutoML Vision": (0.991, 0.946),
    },
    "breastmnist": {
        "ResNet-18 (28)": (0.901, 0.863),
        "ResNet-50 (224)": (0.866, 0.842),
        "Google AutoML Vision": (0.919, 0.861),
    },
}
SEEDS = (0, 1, 2)
BEGIN = "<!-- measured -->\n"
END = "<!-- end of what is measured -->\n"  # what stands between them in RESULTS.md is written anew


def measure(name, seed, folder):
    """One run of the command: its seconds, and the figures on test with intervals."""
    start = time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "medbook",
            "train",
            "--data",
            name,
            "--out",
            str(folder),
            "--seed",
            str(seed),
        ],
        check=True,
    )
    seconds = time.perf_counter() - start
    found, _ = evaluate_table(read_predictions(folder / "predictions.csv"))
    table = found.table.set_index("metric")
    rows = {
        "AUC": table.loc["auc"],
        "accuracy, largest score": table.loc["accuracy (largest score)"],
    }
    if "accuracy" in table.index:
        rows["accuracy, threshold from valid"] = table.loc["accuracy"]
    return {
        "seconds": seconds,
        **{label: (row.value, row.low, row.high) for label, row in rows.items()},
    }


def lines(name, runs):
    """RESULTS.md's section for one data set."""
    labels = [label for label in runs[0] if label != "seconds"]
    yield f"## {name}\n"
    yield "| | " + " | ".join(labels) + " | minutes |"
    yield "|---|" + "---|" * (len(labels) + 1)
    for seed, run in zip(SEEDS, runs, strict=True):
        cells = [
            f"{run[label][0]:.3f} ({run[label][1]:.3f} to {run[label][2]:.3f})" for label in labels
        ]
        yield f"| seed {seed} | " + " | ".join(cells) + f" | {run['seconds'] / 60:.1f} |"
    medians = [f"**{np.median([run[label][0] for run in runs]):.3f}**" for label in labels]
    yield (
        "| **median** | "
        + " | ".join(medians)
        + f" | {np.median([run['seconds'] for run in runs]) / 60:.1f} |"
    )
    for row, (auc, accuracy) in OFFICIAL.get(name, {}).items():
        yield f"| {row} | {auc:.3f} | {accuracy:.3f} |" + " |" * (len(labels) - 1)
    yield ""


def numpy_lines():
    """RESULTS.md's section for the network in plain NumPy (chapter 2.9), on the valid split of
    PneumoniaMNIST."""
    data = load("pneumoniamnist")
    train_set = data.subset("train")
    valid = data.subset("valid")
    yield "## numpy\n"
    yield (
        "Chapter 2.9's `digits_double`, NumPy alone, three epochs of PneumoniaMNIST, "
        "looked at on valid.\n"
    )
    yield "| | AUC on valid | minutes |\n|---|---|---|"
    for seed in SEEDS:
        start = time.perf_counter()
        network = digits_double(data.shape, len(data.classes), seed=seed)
        train(
            network,
            train_set.batch(slice(None)),
            train_set.labels,
            epochs=3,
            batch_size=64,
            seed=seed,
            report=None,
        )
        value, low, high = auc_interval(
            valid.labels, network.predict(valid.batch(slice(None)))[:, 1]
        )
        minutes = (time.perf_counter() - start) / 60
        yield f"| seed {seed} | {value:.3f} ({low:.3f} to {high:.3f}) | {minutes:.1f} |"
    yield ""


def imbalance_lines(name):
    """RESULTS.md's section for one of chapter 4.5's studies: every strategy, three seeds."""
    yield f"## imbalance-{name}\n"
    yield imbalance_study(name, seeds=SEEDS).to_markdown()
    yield ""


def set_lines(name):
    """RESULTS.md's section for one data set."""
    with tempfile.TemporaryDirectory() as folder:
        return list(lines(name, [measure(name, seed, Path(folder) / str(seed)) for seed in SEEDS]))


def write(name, section, target=Path("RESULTS.md")):
    """Put a section in the place of the one of its name, or behind the last."""
    head, _, rest = target.read_text(encoding="utf-8").partition(BEGIN)
    measured, _, tail = rest.partition(END)
    sections = {
        part.split("\n")[0]: part for part in re.split("(?m)^## ", measured) if part.strip()
    }
    sections[name] = section.removeprefix("## ")
    body = "".join(f"## {part}" for part in sections.values())
    target.write_text(f"{head}{BEGIN}\n{body}{END}{tail}", encoding="utf-8")


SECTIONS = {
    **{name: partial(set_lines, name) for name in OFFICIAL},
    "numpy": numpy_lines,
    "coverage": coverage.section,
    **{f"imbalance-{name}": partial(imbalance_lines, name) for name in STUDIES},
}


def main(names):
    for name in names or SECTIONS:
        section = "\n".join(SECTIONS[name]()) + "\n"
        print(section, flush=True)
        write(name, section)


if __name__ == "__main__":
    main(sys.argv[1:])
