"""Train the small network that the chapters on inspection look into:
`python data/nodule_network.py` (phantoms only; five minutes)."""

import tempfile
from pathlib import Path

import keras
from sklearn.metrics import roc_auc_score

from medbook.images import load
from medbook.images.phantoms import write_study
from medbook.training import build_cnn, fit

TO = (
    Path(__file__).resolve().parents[1]
    / "medbook"
    / "inspection"
    / "static"
    / "nodule_network.keras"
)


def network():
    """Three convolutions, each pooled, and two dense layers."""
    return build_cnn((64, 64, 1), 2, filters=(16, 32, 32), dense=(32,), name="nodule_network")


def main(patients=3000, epochs=30):
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_study(folder, patients=patients, prevalence=0.5, size=64, seed=7)
        data = load(folder)
        run = fit(network(), data, epochs=epochs, batch_size=32, members=1, progress=False, seed=0)
    found = run.predictions
    for split, rows in found.groupby("split"):
        print(split, len(rows), f"images, AUC {roc_auc_score(rows.y_true, rows.iloc[:, -1]):.3f}")
    model = network()  # without the optimizer's numbers
    model.set_weights(run.model.get_weights())
    model.save(TO)
    print(f"{TO.stat().st_size / 1000:.0f} kB, {model.count_params():,} parameters")


if __name__ == "__main__":
    main()
