"""The networks: exact sizes, shapes, errors, and model files that are not to be trusted."""

import json
import zipfile

import keras
import numpy as np
import pytest

from medbook.training import cnn
from medbook.training.cnn import ARCHITECTURES, ModelError, build_cnn, compact, load_model

SIZES = {
    "digits_single": 54_410,
    "digits_double": 121_930,
    "chest_gray_two_class": 11_168_642,
    "chest_rgb_binary": 9_679_041,
}


@pytest.mark.parametrize("name", SIZES)
def test_the_printed_networks_have_the_printed_sizes(name):
    model = ARCHITECTURES[name]()
    assert model.count_params() == SIZES[name] and model.name == name
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(
        layer.kernel_size == (3, 3)
        and layer.padding == "valid"
        and layer.activation.__name__ == "relu"
        for layer in convolutions
    )


def test_builder_takes_any_shape_and_says_when_it_is_too_small():
    for shape, classes in [((10, 10, 1), 2), ((33, 57, 4), 7), ((64, 64, 3), 1)]:
        model = build_cnn(shape, classes)
        out = model.predict(np.zeros((2, *shape), "float32"), verbose=0)
        assert out.shape == (2, classes)
    with pytest.raises(ValueError, match="shrinks to nothing"):
        build_cnn((9, 9, 1), 2)
    with pytest.raises(ValueError, match="channel"):
        build_cnn((28, 28), 2)
    with pytest.raises(ValueError, match="classes"):
        build_cnn((28, 28, 1), 0)


@pytest.mark.parametrize("size", [8, 28, 49, 64])
def test_compact_takes_every_size(size):
    model = compact((size, size, 3), 5)
    out = model.predict(
        np.random.default_rng(0).random((2, size, size, 3), dtype="float32"), verbose=0
    )
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


def test_saved_models_come_back(tmp_path):
    model = compact((16, 16, 1), 3)
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 16, 16, 1), dtype="float32")
    np.testing.assert_allclose(load_model(tmp_path / "model.keras")(image), model(image), atol=1e-6)


def forged(path, **part):
    """A `.keras` file whose description names something else than a Keras layer."""
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]).save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][1] |= part
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "part",
    [
        {"module": "os", "class_name": "system", "registered_name": None},
        {
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "function",
        },
        {"module": "keras.layers", "class_name": "Lambda"},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper"},
        {"module": "kerasx.layers", "class_name": "Dense"},
        {"module": "os", "class_name": "system", "registered_name": "medbook>system"},
    ],
)
def test_models_that_would_run_code_are_refused(tmp_path, part):
    forged(tmp_path / "forged.keras", **part)
    with pytest.raises(ModelError, match="refused"):
        load_model(tmp_path / "forged.keras")


def test_other_broken_model_files_are_told(tmp_path):
    with pytest.raises(ModelError, match="no such"):
        load_model(tmp_path / "missing.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelError, match="not a .keras file"):
        load_model(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "empty.keras")
    compact((16, 16, 1), 3).save(tmp_path / "whole.keras")
    content = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError):
        load_model(tmp_path / "half.keras")
    assert (
        cnn.foreign_parts({"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}})
        == []
    )
