"""The command that measures a GPU, tried on the CPU with a network that is quickly built."""

import keras
import pytest
from keras import layers

from tests import gpu


@pytest.fixture
def small_network(monkeypatch):
    """A network with two layers in place of those of keras.applications."""

    def build(name, policy):
        keras.utils.set_random_seed(0)
        dtype = keras.dtype_policies.get(policy)
        return keras.Sequential(
            [
                layers.Input((224, 224, 3)),
                layers.Conv2D(4, 5, strides=4, dtype=dtype, name=f"{name.lower()}_conv"),
                layers.GlobalAveragePooling2D(dtype=dtype),
                layers.Dense(2, activation="softmax", dtype=dtype),
            ]
        )

    monkeypatch.setattr(gpu, "build", build)


def rows(text):
    """The table's rows as lists of cells."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def test_the_table_is_measured_and_written(small_network, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BENCHMARKS.md").write_text(
        "# Benchmarks\n\n## On a GPU\n\nold\n", encoding="utf-8"
    )
    assert gpu.main(["--cpu", "--models", "VGG16", "--repeats", "1", "--write"]) == 0
    table = rows(capsys.readouterr().out)
    assert [row[:2] for row in table[1:]] == [["VGG16", "float32"], ["VGG16", "mixed_bfloat16"]]
    assert all(float(cell) >= 0 for row in table[1:] for cell in row[2:8])
    assert "vgg16_conv" in table[2][8] or "dense" in table[2][8] or "pooling" in table[2][8]
    page = (tmp_path / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert (
        page.startswith("# Benchmarks\n\n## On a GPU\n")
        and "old" not in page
        and rows(page) == table
    )


def test_maps_that_differ_fail(small_network, monkeypatch, capsys):
    monkeypatch.setitem(gpu.CLOSE, "mixed_bfloat16", 0.0)
    assert "differ" in gpu.main(
        ["--cpu", "--models", "VGG16", "--policies", "mixed_bfloat16", "--repeats", "1"]
    )


def test_without_a_gpu_the_table_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "device", lambda: "TensorFlow on CPU (2 cores)")
    assert gpu.main(["--models", "ResNet50"]) == 0
    assert [set(row[2:]) for row in rows(capsys.readouterr().out)[1:]] == [{"not measured"}] * 2
