"""What `medbook train` reaches by default on real images: `python tests/results.py [SET ...]` trains seeds 0, 1, 2 and writes RESULTS.md.

Nothing is chosen here: each run trains on train, chooses its threshold on valid and reads test once. Needs MEDBOOK_DATA.
"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medbook.evaluation.predictions import evaluate_table, read_predictions

OFFICIAL = {  # MedMNIST v2, AUC / accuracy: Yang et al. (2023), Scientific Data 10:41, table 3
    "pneumoniamnist": {"ResNet-18 (28)": (0.944, 0.854), "ResNet-50 (224)": (0.962, 0.884), "Google AutoML Vision": (0.991, 0.946)},
    "breastmnist": {"ResNet-18 (28)": (0.901, 0.863), "ResNet-50 (224)": (0.866, 0.842), "Google AutoML Vision": (0.919, 0.861)},
}
SEEDS = (0, 1, 2)
BEGIN, END = "<!-- measured -->\n", "<!-- end of what is measured -->\n"    # what stands between them in RESULTS.md is written anew


def measure(name, seed, folder):
    """One run of the command: its seconds, and the figures on test with intervals."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medbook", "train", "--data", name, "--out", str(folder), "--seed", str(seed)], check=True)
    seconds = time.perf_counter() - start
    found, _ = evaluate_table(read_predictions(folder / "predictions.csv"))
    table = found.table.set_index("metric")
    rows = {"AUC": table.loc["auc"], "accuracy, largest score": table.loc["accuracy (largest score)"]}
    if "accuracy" in table.index:
        rows["accuracy, threshold from valid"] = table.loc["accuracy"]
    return {"seconds": seconds, **{label: (row.value, row.low, row.high) for label, row in rows.items()}}


def lines(name, runs):
    """RESULTS.md's section for one data set."""
    labels = [label for label in runs[0] if label != "seconds"]
    yield f"## {name}\n"
    yield "| | " + " | ".join(labels) + " | minutes |"
    yield "|---|" + "---|" * (len(labels) + 1)
    for seed, run in zip(SEEDS, runs, strict=True):
        cells = [f"{run[label][0]:.3f} ({run[label][1]:.3f} to {run[label][2]:.3f})" for label in labels]
        yield f"| seed {seed} | " + " | ".join(cells) + f" | {run['seconds'] / 60:.1f} |"
    medians = [f"**{np.median([run[label][0] for run in runs]):.3f}**" for label in labels]
    yield "| **median** | " + " | ".join(medians) + f" | {np.median([run['seconds'] for run in runs]) / 60:.1f} |"
    for row, (auc, accuracy) in OFFICIAL.get(name, {}).items():
        yield f"| {row} | {auc:.3f} | {accuracy:.3f} |" + " |" * (len(labels) - 1)
    yield ""


def main(names):
    page = []
    for name in names or OFFICIAL:
        with tempfile.TemporaryDirectory() as folder:
            runs = [measure(name, seed, Path(folder) / str(seed)) for seed in SEEDS]
        page += lines(name, runs)
        print("\n".join(lines(name, runs)), flush=True)
    return page


if __name__ == "__main__":
    found = main(sys.argv[1:])
    target = Path("RESULTS.md")
    page = target.read_text(encoding="utf-8") if target.exists() else "# Results\n"
    head, _, rest = page.partition(BEGIN)
    target.write_text(head + BEGIN + "\n" + "\n".join(found) + END + rest.partition(END)[2], encoding="utf-8")
