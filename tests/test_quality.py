"""Quality: filters against known noise, holes against known truth."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.data import retina
from skimage.metrics import peak_signal_noise_ratio

from medbook.images import quality as q
from medbook.images.image_files import DataError, ImageFiles
from medbook.images.sources import from_folder
from tests.image_sets import chest_phantoms, picture_folder

EYE = retina()[100:1300:8, 100:1300:8, 1].astype("float32") / 255


# ---- noise and filters


@pytest.mark.parametrize(
    ("kind", "amount", "expected"),
    [("gaussian", 0.1, 0.1), ("poisson", 100, 0.05), ("speckle", 0.2, 0.05)],
)
def test_noise_has_the_stated_amount(kind, amount, expected):
    noise = q.add_noise(np.full((300, 300), 0.25), kind, amount, seed=1) - 0.25
    assert abs(noise.mean()) < 4 * expected / 300 and abs(noise.std() / expected - 1) < 0.02


def test_salt_and_pepper_hits_its_share():
    hit = q.add_noise(np.full((300, 300), 0.5), "salt and pepper", 0.1, seed=1)
    assert abs((hit == 0).mean() - 0.05) < 0.004 and abs((hit == 1).mean() - 0.05) < 0.004
    assert (hit[(hit != 0) & (hit != 1)] == 0.5).all()
    assert np.array_equal(
        hit, q.add_noise(np.full((300, 300), 0.5), "salt and pepper", 0.1, seed=1)
    )


@pytest.mark.parametrize(
    ("kind", "amount"), [("pink", 1), ("gaussian", -1), ("salt and pepper", 1.5), ("poisson", 0)]
)
def test_noise_refuses(kind, amount):
    with pytest.raises(ValueError, match="kind|amount"):
        q.add_noise(EYE, kind, amount)


@given(
    arrays(
        np.float64, st.tuples(st.integers(3, 9), st.integers(3, 9)), elements=st.floats(-1e3, 1e3)
    ),
    st.sampled_from([3, 5]),
)
@settings(max_examples=30, deadline=None)
def test_loops_equal_the_library(image, size):
    assert np.allclose(
        q.window_filter_loops(image, size), ndimage.uniform_filter(image, size), atol=1e-8
    )
    assert np.array_equal(
        q.window_filter_loops(image, size, np.median), ndimage.median_filter(image, size)
    )
    assert np.allclose(
        q.denoise(image, "mean", size=size), q.window_filter_loops(image, size), atol=1e-2
    )


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_noise_level_is_found(sigma):
    assert abs(q.noise_level(q.add_noise(EYE, "gaussian", sigma)) / sigma - 1) < 0.25
    flat = q.add_noise(
        np.add.outer(np.linspace(0, 1, 200), np.linspace(0, 3, 200)), "gaussian", sigma
    )
    assert abs(q.noise_level(flat) / sigma - 1) < 0.03
    assert np.allclose(q.noise_level(np.stack([flat, 2 * flat], -1))[1], 2 * q.noise_level(flat))


def test_each_noise_has_its_filter():
    def gain(kind, amount, method):
        noisy = q.add_noise(EYE, kind, amount, seed=2)
        return peak_signal_noise_ratio(
            EYE, q.denoise(noisy, method), data_range=1
        ) - peak_signal_noise_ratio(EYE, noisy, data_range=1)

    pepper = {method: gain("salt and pepper", 0.05, method) for method in q.FILTERS}
    assert max(pepper, key=pepper.get) == "median" and pepper["median"] > pepper["mean"] + 3
    assert gain("gaussian", 0.08, "mean") > gain("gaussian", 0.08, "median") > 3
    assert gain("gaussian", 0.08, "non-local means") > 3 and gain("gaussian", 0.08, "bilateral") > 3


@pytest.mark.parametrize("method", q.FILTERS)
def test_filters_keep_shape_type_and_grey(method):
    grey = np.full((12, 15), 7.0)
    assert np.allclose(q.denoise(grey, method, noise=1.0), grey, atol=1e-4)
    colour = (
        (q.add_noise(np.full((16, 17, 3), 0.5), "gaussian", 0.1) * 255)
        .clip(0, 255)
        .astype(np.uint8)
    )
    result = q.denoise(colour, method)
    assert result.shape == colour.shape and result.dtype == np.uint8 and result.std() < colour.std()
    assert q.denoise(colour[..., :1], method).shape == (16, 17, 1)
    hounsfield = q.denoise(-1000 + 100 * EYE, method)
    assert -1001 < hounsfield.min() and hounsfield.max() < -899


def test_filters_refuse_clearly():
    torn = np.where(np.eye(8), np.nan, 1.0)
    with pytest.raises(ValueError, match="8 of 64 values are NaN.*inpaint"):
        q.denoise(torn)
    with pytest.raises(ValueError, match="odd number"):
        q.denoise(EYE, size=4)
    with pytest.raises(ValueError, match="write one of mean, median"):
        q.denoise(EYE, "magic")
    with pytest.raises(ValueError, match="3 × 3"):
        q.noise_level(np.zeros((2, 5)))


def test_contrast_of_a_nodule():
    image = np.random.default_rng(0).normal(0, 2, (40, 40))
    lesion = np.zeros((40, 40), bool)
    lesion[18:22, 18:22] = True
    image[lesion] += 50
    contrast, cnr = q.lesion_contrast(image, lesion)
    assert abs(contrast - 50) < 3 and 15 < cnr < 40
    assert (
        q.lesion_contrast(q.denoise(image, "median", size=9), lesion)[0] < 5
    )  # the median wipes it out
    with pytest.raises(ValueError, match="empty"):
        q.lesion_contrast(image, np.zeros_like(lesion))


# ---- holes, gaps, series


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_neighbours_slow_and_fast_agree(seed, share):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(9, 11))
    missing = rng.random((9, 11)) < share
    missing[rng.integers(9), rng.integers(11)] = False
    fast = q.fill_by_neighbours(image, missing)
    assert np.allclose(fast, q.fill_by_neighbours_loops(image, missing)) and np.array_equal(
        fast[~missing], image[~missing]
    )
    assert fast.min() >= image[~missing].min() - 1e-9 and fast.max() <= image[~missing].max() + 1e-9


@pytest.mark.parametrize("method", ["neighbours", "biharmonic", "telea"])
def test_inpaint_fills_and_leaves_the_rest(method):
    missing = np.random.default_rng(0).random(EYE.shape) < 0.2
    image = np.where(missing, np.nan, 1000 * EYE - 300)
    filled = q.inpaint(image, missing, method)
    assert np.isfinite(filled).all() and np.array_equal(
        filled[~missing], (1000 * EYE - 300)[~missing]
    )
    error = np.sqrt(np.mean((filled - 1000 * EYE + 300)[missing] ** 2))
    assert error < 0.5 * np.std(1000 * EYE)
    assert np.array_equal(q.inpaint(EYE, np.zeros(EYE.shape, bool), method), EYE)
    assert q.inpaint(np.stack([EYE] * 3, -1), missing, method).shape == (*EYE.shape, 3)
    assert np.allclose(q.inpaint(np.where(missing, 0, 5.0), missing, method), 5, atol=1e-4)


def test_inpaint_refuses():
    for missing in (np.ones(EYE.shape, bool), np.zeros((3, 3), bool)):
        with pytest.raises(ValueError, match="at least one known"):
            q.inpaint(EYE, missing)
    with pytest.raises(ValueError, match="method 'x'"):
        q.inpaint(EYE, EYE > 1, "x")


@given(st.lists(st.floats(0.5, 9), min_size=2, max_size=8), st.floats(0.4, 5))
@settings(max_examples=30, deadline=None)
def test_slices_lie_where_they_say(gaps, spacing):
    positions = np.concatenate([[-20.0], -20 + np.cumsum(gaps)])
    volume = np.stack(
        [np.full((2, 3), z) for z in positions]
    )  # linear in z: interpolation is exact
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new, at, made = q.even_slices(volume, positions, spacing)
    assert np.allclose(new[:, 0, 0], at, atol=1e-3) and np.allclose(np.diff(at), spacing)
    assert positions[0] == at[0] and at[-1] <= positions[-1] + 1e-5 * spacing
    assert all(
        flag == (np.abs(positions - z).min() > 0.01 * spacing)
        for z, flag in zip(at, made, strict=True)
    )


def test_slices_tell_the_gap_and_refuse():
    volume = np.random.default_rng(0).normal(size=(4, 5, 6))
    with pytest.warns(UserWarning, match="2 of 6 slices are interpolated.*behind slice 1, is 9 mm"):
        new, at, made = q.even_slices(volume, [0, 3, 12, 15])
    assert made.tolist() == [False, False, True, True, False, False] and np.allclose(
        new[~made], volume, atol=1e-6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not q.even_slices(volume, [0, 3, 6, 9])[2].any()
    for positions in ([0, 3, 3, 6], [3, 2, 1, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="sorted and increasing"):
            q.even_slices(volume, positions)
    with pytest.raises(ValueError, match="the gap behind slice 1 is 9 mm, more than 5"):
        q.even_slices(volume, [0, 3, 12, 15], max_gap=5)
    with pytest.raises(ValueError, match="spacing"):
        q.even_slices(volume, [0, 3, 12, 15], 0)


@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_series_agree_with_pandas(seed, count, share):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.1, 3, count))
    values = np.where(rng.random((count, 2)) < share, np.nan, rng.normal(size=(count, 2)))
    table = pd.DataFrame(values, index=times)
    filled, missing = q.fill_series(values, times)
    assert np.array_equal(filled, table.ffill(), equal_nan=True) and np.array_equal(
        missing, np.isnan(values)
    )
    linear = q.fill_series(values, times, "linear")[0]
    expected = table.interpolate("index", limit_area="inside") if count > 1 else table
    assert np.allclose(linear, expected, equal_nan=True)
    masked = q.series_with_mask(values, times)
    assert masked.shape == (count, 6) and np.isfinite(masked).all()
    assert (
        np.array_equal(masked[:, 2:4] == 1, ~missing)
        and (masked[:, 4:][~missing] == 0).all()
        and (masked[:, 4:] >= 0).all()
    )


def test_series_never_look_ahead_or_too_far():
    values = np.array([np.nan, 1, np.nan, np.nan, 5, np.nan])
    times = np.array([0.0, 1, 2, 5, 6, 7])
    assert np.array_equal(
        q.fill_series(values, times, "last", max_gap=1)[0],
        [np.nan, 1, 1, np.nan, 5, 5],
        equal_nan=True,
    )
    assert np.isnan(q.fill_series(values, times, "linear", max_gap=4)[0][2:4]).all()
    assert np.allclose(
        q.fill_series(values, times, "linear", max_gap=5)[0],
        [np.nan, 1, 1.8, 4.2, 5, np.nan],
        equal_nan=True,
    )
    for now in range(1, 6):  # carried forward: the past does not depend on the future
        assert np.array_equal(
            q.fill_series(values[:now], times[:now])[0],
            q.fill_series(values, times)[0][:now],
            equal_nan=True,
        )
    assert np.allclose(q.fill_series(values, times, "mean")[0][[0, 2]], 3)
    assert q.time_since(values, times).tolist() == [np.inf, 0, 1, 4, 0, 1]
    with pytest.raises(ValueError, match="increasing times"):
        q.fill_series(values, times[::-1])
    with pytest.raises(ValueError, match="method"):
        q.fill_series(values, times, "spline")


# ---- a data set whose pixels change


def test_filters_never_touches_labels_or_splits():
    chest = chest_phantoms()
    after = q.denoise_dataset(chest, "median")
    for name in ("labels", "splits", "patients", "ids"):
        assert np.array_equal(getattr(after, name), getattr(chest, name))
    assert after.images.dtype == chest.images.dtype and not np.array_equal(
        after.images, chest.images
    )
    assert np.array_equal(after.images[3], q.denoise(chest.images[3], "median"))
    with pytest.raises(DataError, match="keep the shape"):
        q.map_images(chest, lambda image: image[::2])


def test_files_are_filtered_when_read(tmp_path):
    files = from_folder(picture_folder(tmp_path))
    after = q.denoise_dataset(files, "mean", size=5)
    assert isinstance(after.images, ImageFiles) and after.digest() != files.digest()
    assert np.allclose(after.images[[4, 2]][0], q.denoise(files.images[4], "mean", size=5))
    part = after.subset("test")
    assert np.allclose(
        part.batch([0])[0], q.denoise(files.subset("test").images[0], "mean", size=5)
    )
