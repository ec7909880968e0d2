"""Training: bfloat16 against a hand-written float32 loop, how time grows with the images, and how
light the import is."""

import subprocess
import sys
import time

import keras
import numpy as np

from medbook.evaluation.intervals import auc_interval
from medbook.images.sources import from_npz
from medbook.images.phantoms import study
from medbook.training.cnn import chest_gray_two_class
from medbook.training.fitting import fit
from medbook.training.precision import has_bfloat16
from tests.bench import Row

EPOCHS = 6


def data_of(folder, images, labels, splits, patients=None):
    arrays = {"images": images, "labels": labels, "splits": splits}
    np.savez(folder / "data.npz", **arrays | ({} if patients is None else {"patients": patients}))
    return from_npz(folder / "data.npz")


def chests(folder):
    """360 phantom radiographs of 224 × 224, half with a nodule; patients 1-160 train, the others
    valid."""
    phantoms = list(study(240, images_per_patient=(1, 2), prevalence=0.5, size=224, seed=3))
    images = np.stack([phantom.image for phantom in phantoms])
    images = (255 * (images - images.min()) / np.ptp(images)).astype("uint8")
    owners = np.array([phantom.patient.id for phantom in phantoms])
    order = {owner: place for place, owner in enumerate(dict.fromkeys(owners))}
    splits = np.where([order[owner] < 160 for owner in owners], "train", "valid")
    return data_of(
        folder, images, np.array([phantom.label for phantom in phantoms]), splits, owners
    )


def hand_written(train, valid, start):
    """Seconds of each epoch after the first, and the scores on valid: plain Keras, float32, as the
    article prints it."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((224, 224, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(128, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.set_weights(start)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = (train.images / 255).astype("float32")
    y = train.labels
    x_valid = (valid.images / 255).astype("float32")
    y_valid = valid.labels
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        model.fit(x, y, batch_size=32, epochs=1, validation_data=(x_valid, y_valid), verbose=0)
        seconds.append(time.perf_counter() - start)
    return seconds[1:], model.predict(x_valid, verbose=0)[:, 1]


def chest_rows(folder):
    data = chests(folder)
    train = data.subset("train")
    valid = data.subset("valid")
    model = chest_gray_two_class()
    start = model.get_weights()
    run = fit(model, data, epochs=EPOCHS, progress=False)
    ours = run.history.seconds.to_numpy()[1:]
    theirs, scores = hand_written(train, valid, start)
    what = "chest_gray_two_class, seconds an epoch, against float32 Keras" + (
        " (AVX512-BF16)" if has_bfloat16() else ""
    )
    yield Row(
        what,
        np.median(ours),
        np.median(theirs),
        np.median(theirs) / np.median(ours),
        ">= 1.8" if has_bfloat16() else ">= 0.98",
    )
    ours, low, high = auc_interval(
        valid.labels, run.predictions[run.predictions.split == "valid"].iloc[:, -1].to_numpy()
    )
    theirs, low_theirs, high_theirs = auc_interval(valid.labels, scores)
    inside = float(low <= theirs <= high and low_theirs <= ours <= high_theirs)
    yield Row(
        f"its AUC on valid ({low:.3f} to {high:.3f}) against Keras's "
        f"({low_theirs:.3f} to {high_theirs:.3f}): inside each other's",
        ours,
        theirs,
        inside,
        ">= 1",
    )


def growth(folder):
    """Seconds an image at 64,000 images against 1,000: 1 when time grows in proportion."""
    rng = np.random.default_rng(0)
    seconds = {}
    for count in (1_000, 4_000, 16_000, 64_000):
        data = data_of(
            folder,
            rng.integers(0, 255, (count, 28, 28), dtype="uint8"),
            rng.integers(0, 2, count),
            np.full(count, "train"),
        )
        epochs = max(3, 24_000 // count)
        seconds[count] = fit("digits_single", data, epochs=epochs, progress=False).history.seconds[
            1:
        ].median() / len(data.subset("train"))
        print(f"  {count} images: {1e6 * seconds[count]:.0f} µs an image", flush=True)
    ratio = seconds[64_000] / seconds[1_000]
    return Row(
        "epoch time an image, 64,000 images against 1,000",
        seconds[64_000],
        seconds[1_000],
        ratio,
        "<= 1.25",
    )


def light():
    code = "import time; t = time.perf_counter(); import medbook; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    seconds = np.median(
        [
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(7)
        ]
    )
    return Row("import medbook, seconds", seconds, 0.1, seconds, "<= 0.1")


def rows():
    import tempfile
    from pathlib import Path

    yield light()
    with tempfile.TemporaryDirectory() as folder:
        yield from chest_rows(Path(folder))
        yield growth(Path(folder))
