"""Precision: what computes in half the bits, and that it goes back."""

import numpy as np
import pytest

from medbook.images.sources import load
from medbook.training.cnn import build
from medbook.training.fitting import fit
from medbook.training.precision import set_precision
from medbook.training.runs import Run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_goes_back_and_the_model_loads(squares, tmp_path, precision):
    run = fit(
        "compact",
        load(squares),
        out=tmp_path / "run",
        epochs=1,
        members=1,
        precision=precision,
        progress=False,
    )
    assert all(layer.compute_dtype == "float32" for layer in run.model.layers)
    loaded = Run.load(tmp_path / "run")
    image = np.zeros((1, *load(squares).shape), "float32")
    np.testing.assert_allclose(
        loaded.model.predict(image, verbose=0), run.model.predict(image, verbose=0), atol=1e-6
    )


def test_unknown_precision(squares):
    with pytest.raises(ValueError, match="precision"):
        set_precision(build("digits_single", load(squares)), "float8")
