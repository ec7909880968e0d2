"""Runs that repeat, resume after being killed, stop politely, and refuse what they cannot learn from."""
import json
import os
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest

from medbook.images.datasets import load
from medbook.training import fitting
from medbook.training.cnn import build
from medbook.training.fitting import State, TrainingError, atomic, fit, set_precision

MEDBOOK = [sys.executable, "-m", "medbook"]


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """An .npz of 300 noisy 16 × 16 images; class 1 has a faint square at a random place."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [200, 100]))
    images = rng.normal(100, 25, (300, 16, 16))
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 11, 2)
        image[row : row + 5, column : column + 5] += 45 * label
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    np.savez(path, images=images.clip(0, 255).astype("uint8"), labels=labels)
    return path


def command(data, out, *options):
    return [*MEDBOOK, "train", "--data", str(data), "--out", str(out), "--members", "2", "--epochs", "6", "--batch-size", "16", *options]


def check_files(folder):
    """Every file that stands is whole, and every finished epoch stands once."""
    assert json.loads((folder / "run.json").read_text())["status"]
    if (folder / "checkpoint.npz").exists():
        State.load(folder / "checkpoint.npz")
    if (folder / "history.csv").exists():
        history = pd.read_csv(folder / "history.csv")
        assert not history.duplicated(["member", "epoch"]).any() and history.notna().all(axis=None)
        for _, rows in history.groupby("member"):
            assert rows.epoch.tolist() == list(range(1, len(rows) + 1))


def results(folder):
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    return history, pd.read_csv(folder / "predictions.csv")


@pytest.fixture(scope="session")
def uninterrupted(squares, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(squares, folder), check=True, capture_output=True)
    return folder


def test_run_folder_is_whole(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {"run.json", "model.keras", "history.csv", "predictions.csv", "report.html", "report.json"}
    assert json.loads((uninterrupted / "run.json").read_text())["status"] == "complete"


@pytest.mark.timeout(1200)
def test_killed_ten_times(squares, uninterrupted, tmp_path):
    """kill -9 at ten random moments; the same command goes on each time and ends where an unkilled run ends."""
    folder, moments = tmp_path / "run", random.Random(7)
    for _ in range(10):
        process = subprocess.Popen(command(squares, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            if "training compact" in line:
                break
        time.sleep(moments.uniform(0, 12))
        process.kill()
        process.wait()
        if (folder / "run.json").exists():
            check_files(folder)
    subprocess.run(command(squares, folder), check=True, capture_output=True)
    check_files(folder)
    for there, here in zip(results(uninterrupted), results(folder), strict=True):
        pd.testing.assert_frame_equal(there, here, rtol=1e-4, atol=1e-5)
    assert not list(folder.glob(".partial-*"))


@pytest.mark.timeout(600)
def test_ctrl_c_leaves_a_usable_run(squares, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(command(squares, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "epoch 2 of" in line:
            process.send_signal(signal.SIGINT)
            break
    tail = process.communicate()[0]
    assert process.returncode == 130 and "Traceback" not in tail
    run = fitting.Run.load(folder)
    assert run.status == "interrupted" and np.isfinite(run.evaluate().table.value.iloc[0])
    assert (folder / "report.html").exists()
    subprocess.run(command(squares, folder), check=True, capture_output=True)
    for there, here in zip(results(uninterrupted), results(folder), strict=True):
        pd.testing.assert_frame_equal(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.timeout(600)
def test_full_disk_is_told_in_one_line(squares, tmp_path):
    """A limit on file size stands for the full disk: the checkpoint does not fit, and no half of it stays."""
    folder = tmp_path / "run"
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$@"', "limited", *command(squares, folder)]
    process = subprocess.run(limited, capture_output=True, text=True)
    assert process.returncode == 1
    lines = [line for line in process.stderr.splitlines() if line.startswith("medbook:")]
    assert len(lines) == 1 and "free some space" in lines[0] and "Traceback" not in process.stderr
    assert not (folder / "checkpoint.npz").exists() and not list(folder.glob(".partial-*"))


def test_same_seed_same_run(squares):
    data = load(squares)
    runs = [fit("digits_single", data, epochs=2, seed=seed, progress=False) for seed in (3, 3, 4)]
    losses = [run.history.loss.tolist() for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_keras_fit_gives_the_same_losses(squares):
    """Against Keras's own loop on arrays: the same network, order, optimiser and batches."""
    data = load(squares).subset("train")
    keras.utils.set_random_seed(1)
    ours, theirs = build("digits_single", data), build("digits_single", data)
    theirs.set_weights(ours.get_weights())
    run = fit(ours, data, epochs=1, batch_size=32, seed=5, precision="float32", progress=False)
    order = fitting.epoch_order(len(data), (5, 0), 0)
    theirs.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy())
    history = theirs.fit(data.batch(order), fitting.targets(data.labels[order], 2), batch_size=32, shuffle=False, verbose=0)
    assert np.isclose(run.history.loss[0], history.history["loss"][0], atol=1e-5)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_other_settings_are_refused(squares, uninterrupted):
    with pytest.raises(TrainingError, match="seed 0 there, 1 here"):
        fit("compact", load(squares), out=uninterrupted, members=2, epochs=6, batch_size=16, seed=1, progress=False)


def test_complete_run_is_read_not_trained(squares, uninterrupted):
    before = (uninterrupted / "model.keras").stat().st_mtime_ns
    run = fit("compact", load(squares), out=uninterrupted, members=2, epochs=6, batch_size=16, progress=False)
    assert run.status == "complete" and (uninterrupted / "model.keras").stat().st_mtime_ns == before


def test_patience_keeps_the_best_epoch(squares):
    data = load(squares)
    run = fit("digits_double", data, epochs=40, learning_rate=0.01, patience=3, seed=0, progress=False)
    best = run.history.valid_loss.idxmin()
    assert len(run.history) == best + 4 < 40
    valid = data.subset("valid")
    probability = fitting.scores(run.model, valid)[np.arange(len(valid)), valid.labels]
    assert np.isclose(-np.log(probability).mean(), run.history.valid_loss[best], atol=0.02)


def test_one_class_is_refused(squares):
    data = load(squares)
    with pytest.raises(TrainingError, match="two classes"):
        fit("compact", data.take(np.flatnonzero(data.labels == 0)), progress=False)


def test_a_loss_that_is_no_number_is_told(squares):
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit("digits_single", load(squares), epochs=3, learning_rate=1e30, progress=False)


def test_a_head_without_probabilities_is_told(squares):
    data = load(squares)
    model = keras.Sequential([keras.layers.Input(data.shape), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="softmax"):
        fit(model, data, progress=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_goes_back_and_the_model_loads(squares, tmp_path, precision):
    run = fit("compact", load(squares), out=tmp_path / "run", epochs=1, members=1, precision=precision, progress=False)
    assert all(layer.compute_dtype == "float32" for layer in run.model.layers)
    loaded = fitting.Run.load(tmp_path / "run")
    image = np.zeros((1, *load(squares).shape), "float32")
    np.testing.assert_allclose(loaded.model.predict(image, verbose=0), run.model.predict(image, verbose=0), atol=1e-6)


def test_unknown_precision(squares):
    with pytest.raises(ValueError, match="precision"):
        set_precision(build("digits_single", load(squares)), "float8")


def test_multi_label_and_sigmoid_heads(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 16, 16), dtype="uint8"), rng.integers(0, 2, (60, 3))
    parts = np.repeat(["train", "valid", "test"], 20)
    np.savez(tmp_path / "many.npz", images=images, labels=labels, splits=parts)
    run = fit("compact", load(tmp_path / "many.npz"), epochs=1, members=1, out=tmp_path / "run", progress=False)
    assert run.model.output_shape == (None, 3) and "y_true_label 0" in run.predictions
    np.savez(tmp_path / "two.npz", images=images, labels=labels[:, 0], splits=parts)
    data = load(tmp_path / "two.npz")
    model = keras.Sequential([keras.layers.Input(data.shape), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")])
    table = fit(model, data, epochs=1, progress=False).predictions
    scores = table[[name for name in table if name.startswith("score_")]]
    assert scores.shape[1] == 2 and np.allclose(scores.sum(axis=1), 1)


def test_atomic_leaves_the_old_file_when_the_write_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("whole")
    with pytest.raises(OSError), atomic(path) as partial:
        partial.write_text("half")
        raise OSError(28, os.strerror(28))
    assert path.read_text() == "whole" and [item.name for item in tmp_path.iterdir()] == ["file.txt"]


def test_every_epoch_is_kept_where_asked(squares, tmp_path):
    """The weights after each epoch, as the explorer takes them; none without `keep_epochs`, and none of an older run."""
    data = load(squares)
    run = fit("digits_single", data, out=tmp_path / "run", epochs=3, members=2, keep_epochs=True, progress=False)
    kept = {path.name for path in (tmp_path / "run" / "epochs").iterdir()}
    assert kept == {f"member{member}-epoch{epoch}.npz" for member in (1, 2) for epoch in (1, 2, 3)}
    again = fit("digits_single", data, out=tmp_path / "run", epochs=2, resume=False, progress=False)
    assert not (tmp_path / "run" / "epochs").exists() and run.model is not again.model


def test_the_last_epoch_kept_is_the_trained_network(squares, tmp_path):
    run = fit("digits_single", load(squares), out=tmp_path / "run", epochs=2, members=1, keep_epochs=True, progress=False)
    with np.load(tmp_path / "run" / "epochs" / "member1-epoch2.npz") as stored:
        for place, value in enumerate(run.model.get_weights()):
            np.testing.assert_array_equal(stored[f"weights_{place}"], value)
