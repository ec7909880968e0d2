"""Fitting: runs that repeat, equal Keras's own loop, and refuse what they cannot learn from."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from medbook.images.augmentation import augmenter
from medbook.images.sources import load
from medbook.training import fitting
from medbook.training.balance import STRATEGIES, epoch_order
from medbook.training.cnn import build, build_cnn
from medbook.training.fitting import Batches, fit
from medbook.training.runs import TrainingError

pytestmark = pytest.mark.slow


def test_same_seed_same_run(squares):
    data = load(squares)
    runs = [fit("digits_single", data, epochs=2, seed=seed, progress=False) for seed in (3, 3, 4)]
    losses = [run.history.loss.tolist() for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_keras_fit_gives_the_same_losses(squares):
    """Against Keras's own loop on arrays: the same network, order, optimiser and batches."""
    data = load(squares).subset("train")
    keras.utils.set_random_seed(1)
    ours = build("digits_single", data)
    theirs = build("digits_single", data)
    theirs.set_weights(ours.get_weights())
    run = fit(ours, data, epochs=1, batch_size=32, seed=5, precision="float32", progress=False)
    order = epoch_order(len(data), (5, 0), 0)
    theirs.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy())
    history = theirs.fit(
        data.batch(order),
        fitting.targets(data.labels[order], 2),
        batch_size=32,
        shuffle=False,
        verbose=0,
    )
    assert np.isclose(run.history.loss[0], history.history["loss"][0], atol=1e-5)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_patience_keeps_the_best_epoch(squares):
    data = load(squares)
    run = fit(
        "digits_double", data, epochs=40, learning_rate=0.01, patience=3, seed=0, progress=False
    )
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
    model = keras.Sequential(
        [keras.layers.Input(data.shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    with pytest.raises(ValueError, match="softmax"):
        fit(model, data, progress=False)


def test_multi_label_and_sigmoid_heads(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 16, 16), dtype="uint8")
    labels = rng.integers(0, 2, (60, 3))
    parts = np.repeat(["train", "valid", "test"], 20)
    np.savez(tmp_path / "many.npz", images=images, labels=labels, splits=parts)
    run = fit(
        "compact",
        load(tmp_path / "many.npz"),
        epochs=1,
        members=1,
        out=tmp_path / "run",
        progress=False,
    )
    assert run.model.output_shape == (None, 3) and "y_true_label 0" in run.predictions
    np.savez(tmp_path / "two.npz", images=images, labels=labels[:, 0], splits=parts)
    data = load(tmp_path / "two.npz")
    model = keras.Sequential(
        [
            keras.layers.Input(data.shape),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    table = fit(model, data, epochs=1, progress=False).predictions
    scores = table[[name for name in table if name.startswith("score_")]]
    assert scores.shape[1] == 2 and np.allclose(scores.sum(axis=1), 1)


def test_labels_that_are_no_number_are_told_as_such(squares):
    """Never as a learning rate that is too large."""
    data = load(squares)
    labels = data.labels.astype(float)
    labels[[5, 9]] = np.nan
    for unknown in (labels, np.stack([labels, 1 - labels], axis=1)):
        with pytest.raises(
            TrainingError, match=r"2 images have a label that is not a number \(NaN\), the first is"
        ):
            fit("digits_single", replace(data, labels=unknown), progress=False)


def test_pixels_that_are_no_number_are_told_as_such(squares):
    data = load(squares)
    images = data.images.astype("float32") / 255
    row = np.flatnonzero(data.splits == "train")[3]
    images[row, 2, 2] = np.nan
    with pytest.raises(
        TrainingError, match=f"image {data.ids[row]} holds pixels that are not a number"
    ):
        fit(simple(data), replace(data, images=images), epochs=1, progress=False)


def simple(dataset):
    """One dense layer."""
    keras.utils.set_random_seed(1)
    layers = keras.layers.Flatten(), keras.layers.Dense(len(dataset.classes), "softmax")
    return keras.Sequential([keras.layers.Input(dataset.shape), *layers])


def test_a_strategy_without_settings_is_none_and_weights_are_inverse_weights(squares):
    data = load(squares)
    for word, strategy in (
        ("none", "plain"),
        ("auto", "inverse-weights"),
        ("weights", "inverse-weights"),
    ):
        runs = [
            fit(simple(data), data, epochs=2, balance=each, progress=False)
            for each in (word, strategy)
        ]
        ours, theirs = (run.predictions.filter(like="score_").iloc[:, -1] for run in runs)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["under-sampling", "minority-augmentation", "logit-adjusted", "masked-majority"]
)
def test_every_kind_of_strategy_trains_and_learns(squares, name):
    data = load(squares)
    run = fit(
        simple(data),
        data,
        epochs=12,
        batch_size=32,
        learning_rate=0.01,
        balance=name,
        progress=False,
    )
    losses = run.history.loss
    assert losses.iloc[-1] < losses.iloc[0] and run.info["settings"]["balance"] == str(
        STRATEGIES[name].settle(data)
    )
    assert run.info["settings"]["strategy"] == name


def test_a_single_sigmoid_trains_with_a_strategy(squares):
    data = load(squares)
    run = fit(
        build_cnn(data.shape, 1, filters=(4,), dense=()),
        data,
        epochs=1,
        balance="logit-adjusted",
        progress=False,
    )
    assert np.isfinite(run.history.loss).all()


def test_marked_images_alone_are_moved(squares):
    data = load(squares)
    settled = STRATEGIES["minority-augmentation"].settle(data)
    x, y = Batches(data.subset("train"), 2, 32, seed=(0, 0), strategy=settled)[0][:2]
    assert set(x) == {"image", "moved"} and (x["moved"][:, 0, 0, 0] == y[:, 1]).all()
    same = keras.Sequential([keras.layers.Input(data.shape), keras.layers.Activation("linear")])
    moving = fitting._augment_marked(same, augmenter("any", seed=0))
    out = keras.ops.convert_to_numpy(moving(x, training=True))
    changed = np.abs(out - x["image"]).max(axis=(1, 2, 3)) > 1e-3
    assert (changed == (y[:, 1] == 1)).all()


@pytest.mark.parametrize("wrong", [np.zeros((4, 8, 8, 1)), (np.zeros((4, 8, 8, 1)), [0, 1, 0, 1])])
def test_arrays_are_refused_with_the_call_that_makes_a_data_set(wrong):
    with pytest.raises(TypeError, match=r"give a Dataset, as `load\(path\)` or `from_arrays"):
        fit("compact", wrong, epochs=1)
