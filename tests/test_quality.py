"""Quality: filters against known noise, holes against known truth, and an audit against planted faults."""
import shutil
import warnings
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.data import retina
from skimage.metrics import peak_signal_noise_ratio

from medbook.images import load
from medbook.images import quality as q
from medbook.images.datasets import DataError, ImageFiles, from_arrays, from_folder
from medbook.images.phantoms import study

EYE = retina()[100:1300:8, 100:1300:8, 1].astype("float32") / 255


@pytest.fixture(scope="session")
def chest():
    """Chest phantoms of 70 patients, 32 × 32, several images each."""
    made = list(study(70, size=32, prevalence=0.4, seed=5))
    return from_arrays(np.stack([one.image for one in made]) / np.float32(4095), [one.label for one in made],
                       patients=[one.patient.id for one in made], classes=["normal", "nodule"])


@pytest.fixture
def few_trees(monkeypatch):
    """Forests of 40 trees instead of 150 inside `audit`: enough for two kinds of bars."""
    monkeypatch.setattr(q, "out_of_fold", partial(q.out_of_fold, trees=40))


@pytest.fixture(scope="session")
def easy():
    """300 images of two kinds that a forest tells apart: a bright bar, upright or level, in noise; every row its own patient."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    images = rng.uniform(0, 0.4, (300, 20, 20, 1))
    for image, label, place in zip(images, labels, rng.integers(5, 13, 300), strict=True):
        (image.swapaxes(0, 1) if label else image)[place:place + 4, 2:18] += 0.5
    return from_arrays(images.astype("float32"), labels, classes=["level", "upright"])


# ---- noise and filters

@pytest.mark.parametrize(("kind", "amount", "expected"), [("gaussian", 0.1, 0.1), ("poisson", 100, 0.05), ("speckle", 0.2, 0.05)])
def test_noise_has_the_stated_amount(kind, amount, expected):
    noise = q.add_noise(np.full((300, 300), 0.25), kind, amount, seed=1) - 0.25
    assert abs(noise.mean()) < 4 * expected / 300 and abs(noise.std() / expected - 1) < 0.02


def test_salt_and_pepper_hits_its_share():
    hit = q.add_noise(np.full((300, 300), 0.5), "salt and pepper", 0.1, seed=1)
    assert abs((hit == 0).mean() - 0.05) < 0.004 and abs((hit == 1).mean() - 0.05) < 0.004
    assert (hit[(hit != 0) & (hit != 1)] == 0.5).all()
    assert np.array_equal(hit, q.add_noise(np.full((300, 300), 0.5), "salt and pepper", 0.1, seed=1))


@pytest.mark.parametrize(("kind", "amount"), [("pink", 1), ("gaussian", -1), ("salt and pepper", 1.5), ("poisson", 0)])
def test_noise_refuses(kind, amount):
    with pytest.raises(ValueError, match="kind|amount"):
        q.add_noise(EYE, kind, amount)


@given(arrays(np.float64, st.tuples(st.integers(3, 9), st.integers(3, 9)), elements=st.floats(-1e3, 1e3)), st.sampled_from([3, 5]))
@settings(max_examples=30, deadline=None)
def test_loops_equal_the_library(image, size):
    assert np.allclose(q.window_filter_loops(image, size), ndimage.uniform_filter(image, size), atol=1e-8)
    assert np.array_equal(q.window_filter_loops(image, size, np.median), ndimage.median_filter(image, size))
    assert np.allclose(q.denoise(image, "mean", size=size), q.window_filter_loops(image, size), atol=1e-2)


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_noise_level_is_found(sigma):
    assert abs(q.noise_level(q.add_noise(EYE, "gaussian", sigma)) / sigma - 1) < 0.25
    flat = q.add_noise(np.add.outer(np.linspace(0, 1, 200), np.linspace(0, 3, 200)), "gaussian", sigma)
    assert abs(q.noise_level(flat) / sigma - 1) < 0.03
    assert np.allclose(q.noise_level(np.stack([flat, 2 * flat], -1))[1], 2 * q.noise_level(flat))


def test_each_noise_has_its_filter():
    def gain(kind, amount, method):
        noisy = q.add_noise(EYE, kind, amount, seed=2)
        return peak_signal_noise_ratio(EYE, q.denoise(noisy, method), data_range=1) - peak_signal_noise_ratio(EYE, noisy, data_range=1)
    pepper = {method: gain("salt and pepper", 0.05, method) for method in q.FILTERS}
    assert max(pepper, key=pepper.get) == "median" and pepper["median"] > pepper["mean"] + 3
    assert gain("gaussian", 0.08, "mean") > gain("gaussian", 0.08, "median") > 3
    assert gain("gaussian", 0.08, "non-local means") > 3 and gain("gaussian", 0.08, "bilateral") > 3


@pytest.mark.parametrize("method", q.FILTERS)
def test_filters_keep_shape_type_and_grey(method):
    grey = np.full((12, 15), 7.0)
    assert np.allclose(q.denoise(grey, method, noise=1.0), grey, atol=1e-4)
    colour = (q.add_noise(np.full((16, 17, 3), 0.5), "gaussian", 0.1) * 255).clip(0, 255).astype(np.uint8)
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
    image, lesion = np.random.default_rng(0).normal(0, 2, (40, 40)), np.zeros((40, 40), bool)
    lesion[18:22, 18:22] = True
    image[lesion] += 50
    contrast, cnr = q.lesion_contrast(image, lesion)
    assert abs(contrast - 50) < 3 and 15 < cnr < 40
    assert q.lesion_contrast(q.denoise(image, "median", size=9), lesion)[0] < 5         # the median wipes it out
    with pytest.raises(ValueError, match="empty"):
        q.lesion_contrast(image, np.zeros_like(lesion))


# ---- holes, gaps, series

@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_neighbours_slow_and_fast_agree(seed, share):
    rng = np.random.default_rng(seed)
    image, missing = rng.normal(size=(9, 11)), rng.random((9, 11)) < share
    missing[rng.integers(9), rng.integers(11)] = False
    fast = q.fill_by_neighbours(image, missing)
    assert np.allclose(fast, q.fill_by_neighbours_loops(image, missing)) and np.array_equal(fast[~missing], image[~missing])
    assert fast.min() >= image[~missing].min() - 1e-9 and fast.max() <= image[~missing].max() + 1e-9


@pytest.mark.parametrize("method", ["neighbours", "biharmonic", "telea"])
def test_inpaint_fills_and_leaves_the_rest(method):
    missing = np.random.default_rng(0).random(EYE.shape) < 0.2
    image = np.where(missing, np.nan, 1000 * EYE - 300)
    filled = q.inpaint(image, missing, method)
    assert np.isfinite(filled).all() and np.array_equal(filled[~missing], (1000 * EYE - 300)[~missing])
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
    volume = np.stack([np.full((2, 3), z) for z in positions])                # linear in z: interpolation is exact
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new, at, made = q.even_slices(volume, positions, spacing)
    assert np.allclose(new[:, 0, 0], at, atol=1e-3) and np.allclose(np.diff(at), spacing)
    assert positions[0] == at[0] and at[-1] <= positions[-1] + 1e-5 * spacing
    assert all(flag == (np.abs(positions - z).min() > 0.01 * spacing) for z, flag in zip(at, made, strict=True))


def test_slices_tell_the_gap_and_refuse():
    volume = np.random.default_rng(0).normal(size=(4, 5, 6))
    with pytest.warns(UserWarning, match="2 of 6 slices are interpolated.*behind slice 1, is 9 mm"):
        new, at, made = q.even_slices(volume, [0, 3, 12, 15])
    assert made.tolist() == [False, False, True, True, False, False] and np.allclose(new[~made], volume, atol=1e-6)
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
    assert np.array_equal(filled, table.ffill(), equal_nan=True) and np.array_equal(missing, np.isnan(values))
    linear = q.fill_series(values, times, "linear")[0]
    expected = table.interpolate("index", limit_area="inside") if count > 1 else table
    assert np.allclose(linear, expected, equal_nan=True)
    masked = q.series_with_mask(values, times)
    assert masked.shape == (count, 6) and np.isfinite(masked).all()
    assert np.array_equal(masked[:, 2:4] == 1, ~missing) and (masked[:, 4:][~missing] == 0).all() and (masked[:, 4:] >= 0).all()


def test_series_never_look_ahead_or_too_far():
    values, times = np.array([np.nan, 1, np.nan, np.nan, 5, np.nan]), np.array([0.0, 1, 2, 5, 6, 7])
    assert np.array_equal(q.fill_series(values, times, "last", max_gap=1)[0], [np.nan, 1, 1, np.nan, 5, 5], equal_nan=True)
    assert np.isnan(q.fill_series(values, times, "linear", max_gap=4)[0][2:4]).all()
    assert np.allclose(q.fill_series(values, times, "linear", max_gap=5)[0], [np.nan, 1, 1.8, 4.2, 5, np.nan], equal_nan=True)
    for now in range(1, 6):                                                    # carried forward: the past does not depend on the future
        assert np.array_equal(q.fill_series(values[:now], times[:now])[0], q.fill_series(values, times)[0][:now], equal_nan=True)
    assert np.allclose(q.fill_series(values, times, "mean")[0][[0, 2]], 3)
    assert q.time_since(values, times).tolist() == [np.inf, 0, 1, 4, 0, 1]
    with pytest.raises(ValueError, match="increasing times"):
        q.fill_series(values, times[::-1])
    with pytest.raises(ValueError, match="method"):
        q.fill_series(values, times, "spline")


# ---- a data set whose pixels change

def test_mending_never_touches_labels_or_splits(chest):
    after = q.denoise_dataset(chest, "median")
    for name in ("labels", "splits", "patients", "ids"):
        assert np.array_equal(getattr(after, name), getattr(chest, name))
    assert after.images.dtype == chest.images.dtype and not np.array_equal(after.images, chest.images)
    assert np.array_equal(after.images[3], q.denoise(chest.images[3], "median"))
    with pytest.raises(DataError, match="keep the shape"):
        q.map_images(chest, lambda image: image[::2])


def picture_folder(root, count=60, seed=0):
    rng = np.random.default_rng(seed)
    for place in range(count):
        path = root / ("sick" if place % 2 else "healthy") / f"P{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = ndimage.gaussian_filter(rng.normal(size=(24, 24)), 2) * 600 + 128
        cv2.imwrite(str(path), smooth.clip(0, 255).astype(np.uint8))
    return root


def test_files_are_mended_when_read(tmp_path):
    files = from_folder(picture_folder(tmp_path))
    after = q.denoise_dataset(files, "mean", size=5)
    assert isinstance(after.images, ImageFiles) and after.digest() != files.digest()
    assert np.allclose(after.images[[4, 2]][0], q.denoise(files.images[4], "mean", size=5))
    part = after.subset("test")
    assert np.allclose(part.batch([0])[0], q.denoise(files.subset("test").images[0], "mean", size=5))


# ---- the audit

def rows_of(problems, *names):
    return [set(rows) for rows in problems[problems.problem.isin(names)].rows]


def test_a_clean_set_is_clean(chest):
    problems = q.audit(chest, checks=["pixels", "copies", "patients", "views"])
    assert list(problems.columns) == list(q.COLUMNS)
    assert not problems.certainty.eq("certain").any() and len(problems) <= 0.03 * len(chest)


def test_planted_faults_are_found(chest):
    found = q.rehearse(chest, share=0.014, seed=4, checks=["pixels", "copies", "views"]).set_index("fault")
    sure = ["exact copy", "brighter copy", "mirrored copy", "copy turned by half", "blank", "nearly constant"]
    assert (found.loc[sure, "sensitivity"] == 1).all(), found
    odd = ["noisy copy (2 %)", "re-encoded copy", "inverted", "upside down", "axes swapped"]
    assert found.loc[odd, "found"].sum() >= 8, found
    assert (found.alarms <= 0.03).all() and (found.low <= found.sensitivity).all() and (found.sensitivity <= found.high).all()


def test_kinds_of_copies_are_named(chest):
    images, free = chest.images.copy(), np.flatnonzero((chest.splits == "train") & (chest.labels == 0))
    a, b, c, d, e, f = free[:6]
    images[b], images[d], images[f] = images[a], images[c][:, ::-1], np.swapaxes(images[e], 0, 1)[::-1]
    problems = q.audit(replace(chest, images=images), checks=["copies"])
    kinds = {frozenset(one.rows): (one.kind, one.certainty, one.detail) for one in problems.itertuples()}
    assert kinds[frozenset({a, b})][:2] == ("exact copy", "certain")
    assert kinds[frozenset({c, d})][:2] == ("turned copy", "suspected") and "mirrored left to right" in kinds[frozenset({c, d})][2]
    assert "turned a quarter to the left" in kinds[frozenset({e, f})][2]


def test_leaks_and_conflicts(chest):
    train, test = np.flatnonzero(chest.splits == "train"), np.flatnonzero(chest.splits == "test")
    images, labels, patients = chest.images.copy(), chest.labels.copy(), chest.patients.copy()
    images[train[0]], images[train[1]] = images[test[0]], np.clip(images[test[1]] * 0.9 + 0.03, 0, 1)
    labels[train[0]], labels[train[1]] = 1 - labels[test[0]], labels[test[1]]
    patients[train[2]] = patients[test[2]]
    leaky = replace(chest, images=images, labels=labels, patients=patients)
    problems = q.audit(leaky, checks=["copies", "patients"])
    assert {train[0], test[0]} in rows_of(problems, "leak by copy") and {train[0], test[0]} in rows_of(problems, "label conflict")
    assert {train[1], test[1]} in rows_of(problems, "leak by copy") and {train[1], test[1]} not in rows_of(problems, "label conflict")
    patient = problems[problems.problem == "leak by patient"]
    assert len(patient) == 1 and set(patient.splits[0]) == {"train", "test"} and patients[test[2]] in patient.detail[0]
    after = q.without_leaks(leaky, problems)
    assert len(leaky) - len(after) == 3 and (after.splits == "test").sum() == len(test)
    assert len(q.without_leaks(leaky, problems, suspected=False)) == len(leaky) - 2
    assert q.audit(after, checks=["patients"]).empty and "leak by copy" not in set(q.audit(after, checks=["copies"]).problem)


def test_odd_images_each_once(chest):
    images = chest.images.copy()
    images[1], images[2], images[3], images[4, 5, 5] = 0.3, 0.5 + 0.005 * images[2], images[3] * 255, np.inf
    problems = q.audit(replace(chest, images=images), checks=["pixels", "copies", "views"])
    want = {"blank image": 1, "nearly constant": 2, "out of range": 3, "not a number": 4}
    assert {one.problem: one.rows[0] for one in problems.itertuples() if one.problem in want} == want
    assert not any(set(one.rows) & {1, 2, 3, 4} for one in problems.itertuples() if one.problem not in want)


def test_doubts_stay_below_the_stated_rate(easy):
    _, small = q.look_through(easy)
    rng = np.random.default_rng(3)
    labels, wrong = easy.labels.copy(), rng.random(len(easy)) < 0.05
    labels[wrong] = 1 - labels[wrong]
    scores = q.out_of_fold(small, labels)
    assert np.allclose(scores.sum(1), 1)
    for stated in (0.02, 0.1):
        doubted = np.isin(np.arange(len(easy)), q.doubtful_labels(scores, labels, stated).row)
        assert doubted[~wrong].mean() <= stated
    assert doubted[wrong].mean() > 0.5
    assert len(q.doubtful_labels(scores, labels, 0)) <= (scores == 0).any(1).sum()


def test_threshold_keeps_its_promise():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([0.5, 0.3, 0.2], 20_000)
    labels = (rng.random(20_000)[:, None] > scores.cumsum(1)).sum(1)                   # drawn from the scores: all rightly labelled
    for stated in (0.005, 0.02, 0.1):
        tau = q.doubt_threshold(scores, stated)
        assert abs((scores[np.arange(20_000), labels] <= tau).mean() - stated) < 4 * np.sqrt(stated / 20_000)
    assert q.doubt_threshold(np.full((4, 2), 0.5), 0.01) == -1


def test_swapped_neighbours_are_one_finding(easy, few_trees):
    labels = easy.labels.copy()
    labels[[40, 41]] = labels[[41, 40]]
    problems = q.audit(replace(easy, labels=labels), checks=["labels"])
    assert {40, 41} in rows_of(problems, "labels perhaps swapped") and {40} not in rows_of(problems, "doubtful label")
    own = np.eye(2)[easy.labels] * 0.9 + 0.05
    given_scores = q.audit(replace(easy, labels=labels), checks=["labels"], scores=own)
    assert given_scores.problem.tolist() == ["labels perhaps swapped"]


def test_copies_do_not_vouch_for_each_other(easy):
    fold = q.deal_folds(easy.labels, np.arange(len(easy)) // 3)
    assert all(len(set(fold[i:i + 3])) == 1 for i in range(0, 300, 3)) and set(fold) == set(range(5))
    shares = [easy.labels[fold == k].mean() for k in range(5)]
    assert np.ptp(shares) < 0.1


def test_many_labels(easy, few_trees):
    many = np.stack([easy.labels, 1 - easy.labels], 1)
    many[10] = 1 - many[10]
    dataset = from_arrays(easy.images, many, classes=["upright", "level"])
    problems = q.audit(dataset, checks=["labels", "copies"], false_alarms=0.1)
    assert {10} in rows_of(problems, "doubtful label") and problems.detail.str.contains("labelled").all()


def test_a_forest_that_knows_nothing_keeps_silent(easy, few_trees):
    rng = np.random.default_rng(1)
    chance = replace(easy, labels=rng.permutation(easy.labels))
    problems = q.audit(chance, checks=["labels"])
    assert problems.empty and "no better than chance" in problems.attrs["unchecked"]["labels"]
    many = from_arrays(easy.images, rng.integers(0, 2, (300, 2)), classes=["upright", "level"])
    assert "no better than chance" in q.audit(many, checks=["labels"]).attrs["unchecked"]["labels"]


def test_a_negative_in_another_split_is_a_leak(chest):
    train, test = np.flatnonzero(chest.splits == "train"), np.flatnonzero(chest.splits == "test")
    images = chest.images.copy()
    images[train[0]] = 1 - images[test[0]]
    problems = q.audit(replace(chest, images=images), checks=["copies"])
    leak = problems[problems.problem == "leak by copy"]
    assert {train[0], test[0]} in rows_of(problems, "leak by copy") and "negative copy" in set(leak.kind)


def test_suspected_views_keep_to_the_stated_share():
    rng = np.random.default_rng(0)
    base = ndimage.gaussian_filter(rng.normal(size=(28, 28)), 3)
    noisy = base / base.std() + 10 * ndimage.gaussian_filter(rng.normal(size=(2000, 28, 28)), (0, 1, 1))
    small = q.thumbnails(noisy[..., None])
    assert len(q.odd_views(small)) <= 0.02 * 2000 and len(q.odd_views(small, false_alarms=0.005)) <= 0.008 * 2000
    turned = small.copy()
    turned[:20] = small[:20, ::-1]
    assert np.isin(np.arange(20), q.odd_views(turned).row).mean() > 0.5


@pytest.mark.parametrize("count", [2, 3, 12])
def test_tiny_sets(count):
    images = np.random.default_rng(0).uniform(size=(12, 9, 7, 3)).astype("float32")
    dataset = from_arrays(images, np.arange(12) % 2).take(np.arange(count))
    problems = q.audit(dataset)
    assert set(problems.attrs["unchecked"]) == {"patients", "views", "labels"}
    assert q.audit_summary(problems).problem.str.startswith("not checked").sum() == 3


def test_all_blank_does_not_fail():
    dataset = from_arrays(np.zeros((60, 8, 8), np.uint8), np.arange(60) % 2)
    problems = q.audit(dataset)
    assert (problems.problem == "blank image").sum() == 60 and len(problems) == 60


def test_bad_arguments(chest):
    for call, message in [(lambda: q.audit("breastmnist"), "takes a Dataset"), (lambda: q.audit(chest, checks=["pixel"]), "checks"),
                          (lambda: q.audit(chest, near=2), "near"), (lambda: q.audit(chest, scores=np.zeros((3, 2))), "scores of shape"),
                          (lambda: q.show_problems(chest, q.audit(chest, checks=["patients"])), "no problem")]:
        with pytest.raises(DataError, match=message):
            call()


def test_files_in_batches_and_broken_ones(tmp_path, monkeypatch):
    root = picture_folder(tmp_path / "set")
    image = cv2.imread(str(root / "sick" / "P001.png"))
    cv2.imwrite(str(root / "sick" / "P059.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    shutil.copy(root / "healthy" / "P000.png", root / "healthy" / "P098.png")
    (root / "healthy" / "P099.png").write_bytes(b"no picture")
    files = from_folder(root, size=24)
    (root / "healthy" / "P010.png").write_bytes(b"gone bad since")
    broken = int(np.flatnonzero(files.ids == "healthy/P010.png")[0])
    monkeypatch.setattr(ImageFiles, "__array__", lambda *args, **options: pytest.fail("all images at once"))
    problems = q.audit(files, checks=["pixels", "copies"])
    assert (broken,) in problems.rows[problems.problem == "unreadable image"].tolist()
    assert ("healthy/P099.png",) in problems.ids[problems.problem == "unreadable image"].tolist()
    pairs = [set(ids) for ids in problems.ids[problems.kind == "exact copy"]]
    assert {"healthy/P000.png", "healthy/P098.png"} in pairs and {"sick/P001.png", "sick/P059.png"} in pairs


def test_audit_changes_nothing_and_repeats(easy, few_trees):
    easy = easy.take(np.arange(120))
    before = easy.digest()
    first, second = q.audit(easy), q.audit(easy)
    pd.testing.assert_frame_equal(first, second)
    assert easy.digest() == before and set(first.problem) <= set(q.ORDER) == set(q.ADVICE)


def test_pictures_of_problems(easy):
    images = easy.images.copy()
    images[7], images[8], images[9] = images[3], images[5] * 255, np.nan
    dataset = replace(easy, images=images)
    problems = q.audit(dataset, checks=["pixels", "copies"])
    figure = q.show_problems(dataset, problems)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == sum(map(len, problems.rows.head(6)))
    figure.clear()


# ---- what stands in the shared files

@pytest.fixture
def shared():
    import os
    if not os.environ.get("MEDBOOK_DATA"):
        pytest.skip("MEDBOOK_DATA is not set")


def test_breastmnist(shared):
    dataset = load("breastmnist")
    problems = q.audit(dataset, checks=["pixels", "copies"])
    certain = problems[problems.certainty == "certain"]
    assert certain.problem.tolist() == ["leak by copy", "label conflict"] and set(certain.splits.iloc[0]) == {"train", "test"}
    near = problems[(problems.problem == "leak by copy") & (problems.kind == "near copy")]
    in_test = {row for rows in near.rows for row in rows if dataset.splits[row] == "test"}
    assert 55 <= len(in_test) <= 65
    after = q.without_leaks(dataset, problems)
    assert (after.splits == "test").sum() == 156


def test_pneumoniamnist(shared):
    dataset = load("pneumoniamnist")
    dataset = dataset.take(np.flatnonzero(dataset.splits != "test"))
    facts = pd.DataFrame({"hash": q.pixel_hashes(dataset.images)})
    found = pd.DataFrame(q.exact_copies(dataset, facts.hash))
    leaks = found[found.problem == "leak by copy"]
    assert len(leaks) == 8 and all(set(splits) == {"train", "valid"} for splits in leaks.splits)
    assert (found.certainty == "certain").all() and "label conflict" not in set(found.problem)
