"""Data sets: splits by patient, every way in, bad input, bounded memory, downloads with a checked hash."""
import hashlib
import pickle
import threading
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from medbook.images import datasets
from medbook.images.datasets import Card, DataError, allocate, cards, from_arrays, from_npz, link, load, split

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch, request):
    """Tests see no data but their own, unless they ask for `shared`; the cache is a new folder."""
    monkeypatch.setenv("MEDBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
    if "shared" not in request.fixturenames:
        monkeypatch.delenv("MEDBOOK_DATA", raising=False)


def picture(path, seed=0, shape=(20, 24), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return pixels


def class_folder(root, count=12, names=("normal", "sick"), **options):
    for label, name in enumerate(names):
        for place in range(count):
            picture(root / name / f"P{label}{place // 2:03d}_{place}.png", seed=100 * label + place, **options)
    return root


def medmnist(path, sizes=(20, 8, 12), shape=(28, 28), labels=lambda n: RNG.permutation(np.arange(n) % 2)[:, None].astype(np.uint8)):
    arrays = {}
    for name, count in zip(("train", "val", "test"), sizes, strict=True):
        arrays |= {f"{name}_images": RNG.integers(0, 256, (count, *shape), dtype=np.uint8), f"{name}_labels": labels(count)}
    np.savez(path, **arrays)
    return arrays


# ---- splits

@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_shares_are_whole_and_complete(count, fractions):
    shares = allocate(count, fractions)
    assert shares.sum() == count and (shares >= 0).all()
    if count >= 3:
        assert (shares > 0).all()
    assert (np.abs(shares - count * np.array(fractions) / sum(fractions)) <= 2).all()


@given(st.integers(0, 2**20), st.integers(1, 60), st.integers(1, 6), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_no_patient_stands_in_two_splits(seed, patients, most, classes):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients)).astype(str)
    labels = rng.integers(0, classes, len(owner))
    splits = split(labels, patients=owner, seed=seed)
    assert not datasets.shared_patients(owner, splits)
    assert set(splits) <= {"train", "valid", "test"}
    assert (splits == split(labels, patients=owner, seed=seed)).all()
    many = np.stack([labels == 0, labels > 0], 1).astype(int)
    assert not datasets.shared_patients(owner, split(many, patients=owner, seed=seed))


def test_split_by_row_is_exact_in_every_class():
    labels = np.repeat([0, 1, 2], [700, 200, 30])
    splits = split(labels, seed=3)
    for value, count in enumerate((700, 200, 30)):
        assert [int((splits[labels == value] == name).sum()) for name in ("train", "valid", "test")] == [
            round(0.7 * count), round(0.1 * count), round(0.2 * count)]
    assert (splits != split(labels, seed=4)).any()


def test_split_by_patient_is_as_balanced_as_scikit_learn():
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    labels = (rng.random(150) < 0.15).astype(int)[owner]
    splits = split(labels, patients=owner, fractions=(0.8, 0, 0.2))
    assert set(splits) == {"train", "test"}
    theirs = next(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, owner))[1]
    off = [abs((labels[rows] == 1).sum() / (labels == 1).sum() - 0.2) for rows in (splits == "test", theirs)]
    assert off[0] <= max(off[1], 0.02) and abs((splits == "test").mean() - 0.2) < 0.02


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=25))
@settings(max_examples=30, deadline=None)
def test_link_joins_what_shares_a_value(pairs):
    first, second = map(np.array, zip(*pairs, strict=True))
    groups = link(first, second)
    same = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(len(pairs)):
        same = (same.astype(int) @ same.astype(int)) > 0
    assert ((groups[:, None] == groups) == same).all()


def test_equal_images_stay_in_one_split_whatever_their_patient():
    images = RNG.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    images[30:] = images[:30]
    for patients in (None, [f"P{row}" for row in range(60)]):
        data = from_arrays(images, np.arange(60) % 2, patients=patients)
        assert (data.splits[:30] == data.splits[30:]).all()


def test_blank_images_are_no_twins():
    data = from_arrays(np.zeros((40, 6, 6), np.uint8), np.arange(40) % 2)
    assert data.card.counts == {"train": 28, "valid": 4, "test": 8} and len(data.problems) == 0


def test_symmetry_of_own_data_is_none_unless_told(tmp_path):
    save(tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").card.symmetry == "none"
    for path in (tmp_path / "a.npz", class_folder(tmp_path / "b")):
        assert load(path, symmetry="any").card.symmetry == "any"
    with pytest.raises(DataError, match="symmetry is 'vertical'"):
        load(tmp_path / "a.npz", symmetry="vertical")


def test_missing_splits_are_taken_from_train_by_patient():
    owner = np.repeat(np.arange(40), 3).astype(str)
    given_ = np.where(owner.astype(int) < 30, "train", "test")
    data = from_arrays(RNG.random((120, 5, 5)), np.repeat(np.arange(40) % 2, 3), patients=owner, splits=given_)
    assert (data.splits[90:] == "test").all() and (data.splits == "valid").sum() in range(6, 18)
    assert not datasets.shared_patients(owner, data.splits) and "valid made by medbook" in data.card.notes[-1]


# ---- cards

def test_every_card_is_whole():
    known = cards()
    assert len(known) == 14 and {"bccd", "phantoms", "pneumoniamnist", "organsmnist"} <= set(known)
    for card in known.values():
        assert card.title and card.classes and card.licence != "not stated" and card.source and card.citation
        assert card.notes[0].startswith(f"symmetry {card.symmetry}:"), card.name
        assert card.task == ("binary" if len(card.classes) == 2 else "multi-label" if card.name == "chestmnist" else "multi-class")
        if "mnist" in card.name:
            assert sorted(card.files, key=int) == ["28", "64", "128", "224"] and len(card.md5) == 32 and sum(card.counts.values()) > 700
    assert sum(len({item["md5"] for item in card.files.values()}) for card in known.values()) == 48


def test_the_page_of_cards_is_made_from_the_cards():
    page = Path(__file__).parents[1] / "data" / "README.md"
    assert page.read_text(encoding="utf-8") == datasets.cards_markdown()


@pytest.mark.parametrize("text, says", [("title = ", "not a readable card"), ('colour = "red"', "no field 'colour'"),
                                        ('symmetry = "vertical"', "symmetry is 'vertical'")])
def test_a_bad_card_is_told(tmp_path, text, says):
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(DataError, match=says):
        datasets.read_card(tmp_path / "odd.toml")


# ---- real sets

@pytest.mark.parametrize("name, counts, twins", [("breastmnist", (546, 78, 156), 1), ("pneumoniamnist", (4708, 524, 624), 8)])
def test_medmnist_by_name_and_by_file(shared, name, counts, twins):
    data = load(name)
    assert tuple(data.card.counts.values()) == counts and data.shape == (28, 28, 1) and data.task == "binary"
    assert data.labels.dtype == np.int64 and data.labels.ndim == 1 and len(data.problems) == twins
    by_file = load(shared / "medmnist" / f"{name}.npz")
    assert by_file.digest() == data.digest() and by_file.classes == list(cards()[name].classes)
    raw = np.load(shared / "medmnist" / f"{name}.npz")
    assert (data.subset("valid").images[..., 0] == raw["val_images"]).all()
    assert np.shares_memory(data.subset("test").images, data.images)
    assert any("byte for byte" in note for note in data.card.notes)


def test_bccd_is_split_by_smear(shared):
    data = load("bccd")
    assert data.shape == (32, 32, 3) and len(data) == 4886 and len(np.unique(data.patients)) == 364
    assert not datasets.shared_patients(data.patients, data.splits)
    table = data.summary()
    assert ((table["test"] / table["all"]).between(0.19, 0.21)).all() and table.loc["RBC", "all"] == 4153
    assert not any("byte for byte" in note for note in data.card.notes)


# ---- .npz

@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (64, 64), (224, 224, 3)])
@pytest.mark.parametrize("many", [False, True])
def test_official_layouts(tmp_path, shape, many):
    draw = (lambda n: RNG.integers(0, 2, (n, 14))) if many else (lambda n: (np.arange(n) % 3)[:, None])
    raw = medmnist(tmp_path / "set.npz", shape=shape, labels=draw)
    data = load(tmp_path / "set.npz")
    assert data.task == ("multi-label" if many else "multi-class") and data.shape == (*shape, 1)[:3]
    assert data.labels.shape == ((40, 14) if many else (40,)) and len(data.summary()) == (16 if many else 4)
    expected = raw["test_images"].reshape(12, *data.shape) / np.float32(255)
    np.testing.assert_array_equal(data.subset("test").batch(slice(None)), expected)


def test_plain_npz_with_everything(tmp_path):
    np.savez(tmp_path / "a.npz", images=RNG.random((30, 8, 8)), labels=np.array(["cat", "dog"])[np.arange(30) % 2],
             groups=np.arange(30) // 3, splits=np.repeat(["Training", "val", "TEST"], [18, 6, 6]), ids=np.arange(30))
    data = load(tmp_path / "a.npz")
    assert data.classes == ["cat", "dog"] and data.images.dtype == np.float32 and data.patients[29] == "9" and data.ids[3] == "3"
    assert data.card.counts == {"train": 18, "valid": 6, "test": 6}


def test_to_npz_round_trip_and_a_full_disk(tmp_path, monkeypatch):
    data = load(class_folder(tmp_path / "set"), patient="P[0-9]+")
    again = load(data.to_npz(tmp_path / "copy.npz"))
    np.testing.assert_array_equal(again.images, data.images[:])
    for name in ("labels", "splits", "ids", "patients"):
        assert (getattr(again, name) == getattr(data, name)).all()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left"):
        data.to_npz(tmp_path / "full.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.npz", "set"]
    with pytest.raises(DataError, match="No such file"):
        data.to_npz(tmp_path / "none" / "full.npz")


def save(path, **arrays):
    good = {"images": RNG.integers(0, 256, (10, 8, 8), dtype=np.uint8), "labels": np.arange(10) % 2}
    np.savez(path, **{key: value for key, value in (good | arrays).items() if value is not None})


NAN = np.full((10, 8, 8), np.nan)
BAD_NPZ = {
    "pickled objects": (lambda p: save(p, labels=np.array(["a", None] * 5, object)), "refused; save plain"),
    "pickled images": (lambda p: save(p, images=np.array([1, [2]] * 5, object)), "'images' holds pickled objects"),
    "no images": (lambda p: save(p, images=None), "it holds labels"),
    "no labels": (lambda p: save(p, labels=None), "it holds images"),
    "lengths": (lambda p: save(p, labels=np.arange(9) % 2), "10 images but 9 labels"),
    "patients": (lambda p: save(p, patients=np.arange(9)), "10 images but 9 patients"),
    "volume": (lambda p: save(p, images=np.zeros((10, 8, 8, 8))), "volumes and other shapes"),
    "channels first": (lambda p: save(p, images=np.zeros((10, 3, 8, 8))), "moveaxis"),
    "flat": (lambda p: save(p, images=np.zeros((10, 64))), "shape"),
    "words as pixels": (lambda p: save(p, images=np.full((10, 8, 8), "x")), "numbers are needed"),
    "no rows": (lambda p: save(p, images=np.zeros((0, 8, 8)), labels=np.zeros(0)), "holds no image"),
    "NaN": (lambda p: save(p, images=NAN), "NaN or infinite"),
    "infinite": (lambda p: save(p, images=NAN * 0 + np.inf), "NaN or infinite"),
    "one class": (lambda p: save(p, labels=np.ones(10, int)), "one class only"),
    "fractions": (lambda p: save(p, labels=np.linspace(0, 1, 10)), "fractions"),
    "missing label": (lambda p: save(p, labels=np.array([0, 1] * 4 + [np.nan, 1])), "missing values"),
    "unknown label": (lambda p: save(p, classes=np.array(["a"])), "unknown label 1 in row 1"),
    "unknown word": (lambda p: save(p, labels=np.array(["a", "b"] * 5), classes=np.array(["a", "c"])), "unknown label 'b'"),
    "multi-label 2": (lambda p: save(p, labels=np.full((10, 3), 2)), "only 0 and 1"),
    "unknown split": (lambda p: save(p, splits=np.array(["train", "later"] * 5)), "unknown split 'later'"),
    "no train": (lambda p: save(p, splits=np.array(["test"] * 10)), "no train rows"),
    "patient in two splits": (lambda p: save(p, patients=np.arange(10) // 2, splits=np.array(["train", "test"] * 5)),
                              r"5 patients .*\(0, 1"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "not a zip": (lambda p: p.write_bytes(b"x" * 999), "not an .npz"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps([1])), "not an .npz"),
    "a folder": (lambda p: p.mkdir(), "no folders of classes"),
    "missing": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_is_one_line_that_names_the_file(tmp_path, case):
    make, says = BAD_NPZ[case]
    path = tmp_path / "input.npz"
    make(path)
    with pytest.raises(DataError, match=says) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400 and ("input.npz" in line or case == "no train")


def test_npz_cut_at_any_place_is_told(tmp_path):
    save(tmp_path / "whole.npz")
    data = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for size in np.linspace(1, len(data) - 1, 25).astype(int):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"cut\.npz"):
            from_npz(path)
    for place in range(40, len(data), 101):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1:])
        try:
            from_npz(path)
        except DataError as error:
            assert "cut.npz" in str(error)


def test_missing_official_labels_and_unequal_splits(tmp_path):
    raw = medmnist(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{key: value for key, value in raw.items() if key != "val_labels"})
    np.savez(tmp_path / "c.npz", **raw | {"val_labels": raw["val_labels"][:-1]})
    np.savez(tmp_path / "d.npz", **raw | {"val_images": raw["val_images"][:, :20]})
    for name, says in (("b", "no array 'val_labels'"), ("c", "8 val_images but 7 val_labels"), ("d", "differ in shape")):
        with pytest.raises(DataError, match=says):
            load(tmp_path / f"{name}.npz")


# ---- folders and tables

def test_folder_of_classes_reads_the_pixels_written(tmp_path):
    data = load(class_folder(tmp_path), patient="P[0-9]+")
    assert data.classes == ["normal", "sick"] and data.shape == (20, 24, 1) and data.images.dtype == np.float32
    assert len(np.unique(data.patients)) == 12 and not datasets.shared_patients(data.patients, data.splits)
    for row in (0, 5, 20):
        expected = cv2.imread(str(tmp_path / data.ids[row]), cv2.IMREAD_UNCHANGED) / np.float32(255)
        np.testing.assert_array_equal(data.batch([row])[0, ..., 0], expected)
    np.testing.assert_array_equal(data.images[:][[3, -1]], data.images[np.array([3, -1])])
    np.testing.assert_array_equal(data.images[data.labels == 1], data.images[12:])
    np.testing.assert_array_equal(np.asarray(data.take([7, 2]).images), data.batch([7, 2]))
    with pytest.raises(IndexError):
        data.images[99]


def test_split_folders_sizes_colours_and_unreadable_files(tmp_path):
    for name in ("train", "Validation", "test"):
        class_folder(tmp_path / name, 4, shape=(10, 12) if name == "train" else (30, 30))
    for row, place in enumerate((tmp_path / "train" / "normal", tmp_path / "test" / "sick")):
        picture(place / "colour.png", seed=7 + row, shape=(9, 9, 3))
        (place / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
        (place / "notes.txt").write_text("not an image")
        (place / ".hidden.png").write_bytes(b"")
    data = load(tmp_path)
    assert data.shape == (64, 64, 3) and len(data) == 26 and "read at 64 × 64" in " ".join(data.card.notes)
    assert data.problems.file.str.endswith("bad.png").sum() == 2
    assert set(zip(data.splits, [name.split("/")[0] for name in data.ids], strict=True)) == {
        ("train", "train"), ("valid", "Validation"), ("test", "test")}
    assert load(tmp_path, size=(16, 20), fit="pad").shape == (16, 20, 3)


def test_the_same_picture_in_two_split_folders_is_a_problem(tmp_path):
    for name in ("train", "test"):
        class_folder(tmp_path / name, 4)
    assert len(load(tmp_path).problems) == 8


def test_padding_keeps_proportions_and_stretching_fills(tmp_path):
    for name in ("a", "b"):
        for row in range(3):
            picture(tmp_path / name / f"{row}.png", value=200 + row, shape=(10, 20))
    stretched, padded = (load(tmp_path, size=20, fit=fit).images[0] for fit in ("stretch", "pad"))
    assert (stretched > 0.7).all() and (padded[:5] == 0).all() and (padded[5:15] > 0.7).all()


@pytest.mark.parametrize("names, expected", [(("malignant", "benign"), ["benign", "malignant"]), (("b", "a"), ["a", "b"]),
                                             (("normal", "abnormal"), ["normal", "abnormal"]), (("10", "9", "2"), ["2", "9", "10"])])
def test_label_1_is_the_finding(names, expected):
    assert datasets.order_classes(names) == expected


def test_reading_needs_no_memory_for_each_image(tmp_path):
    def peak(count):
        root = tmp_path / str(count)
        class_folder(root, count // 2, shape=(128, 128))
        load(root)                                      # imports and caches beforehand
        tracemalloc.start()
        data = load(root)
        total = sum(float(data.batch(np.arange(start, min(start + 16, count))).sum()) for start in range(0, count, 16))
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 0
        return memory
    few, many = peak(32), peak(320)
    assert many - few < 2e6 < 288 * 128 * 128 * 4       # all pixels would be 18.9 MB more


def test_headers_alone_tell_size_and_leave_damage_for_later(tmp_path):
    class_folder(tmp_path)
    path = tmp_path / "sick" / "cut.png"
    picture(path, seed=99, shape=(20, 24))
    path.write_bytes(path.read_bytes()[:200])
    assert len(load(tmp_path).problems) == 1
    data = load(tmp_path, check=False)
    assert data.shape == (20, 24, 1) and len(data.problems) == 0
    with pytest.raises(DataError, match=r"cut\.png"):
        data.images[:]


def table(root, text, name="labels.csv", encoding="utf-8"):
    for row in range(12):
        picture(root / "images" / f"{row}.png", seed=row)
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def rows(sep=",", head=("image", "label", "patient")):
    lines = [sep.join(head)] + [sep.join((f"images/{row}.png", ("ödem", "normal")[row % 2], f"P{row // 2}"[: None if len(head) > 2 else 0]))
                                .rstrip(sep) for row in range(12)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_tables_as_people_save_them(tmp_path, sep, encoding):
    data = load(table(tmp_path, rows(sep).replace("/", "\\"), encoding=encoding))
    assert data.classes == ["normal", "ödem"] and len(data) == 12 and len(np.unique(data.patients)) == 6
    assert load(tmp_path).digest() == data.digest()     # the folder finds its labels.csv


def test_table_with_own_column_names_and_splits(tmp_path):
    lines = rows(head=("File", "Dx", "MRN")).splitlines()
    text = "\n".join([lines[0] + ",Set"] + [f"{line},{('train', 'val', 'test')[row // 4]}" for row, line in enumerate(lines[1:])])
    data = load(table(tmp_path, text), image="File", label="Dx", patient="MRN", split="Set")
    assert data.card.counts == {"train": 4, "valid": 4, "test": 4}
    moved = tmp_path / "elsewhere" / "t.csv"
    moved.parent.mkdir()
    moved.write_text(text, encoding="utf-8")
    assert len(load(moved, folder=tmp_path, image="File", label="Dx", patient="MRN", split="Set")) == 12


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    extra = "images/99.png,normal,P9\nimages/3.png,ödem,P1\nimages/4.png,ödem,P2\n,normal,P7\nimages/5.png,,P2\n"
    text = rows().replace("images/5.png,normal,P2\n", "") + extra
    data = load(table(tmp_path, text))
    told = dict(zip(data.problems.file, data.problems.error, strict=True))
    assert told == {"images/99.png": "no such file", "images/3.png": "named in several rows with different labels",
                    "images/4.png": "named twice", "row 16": "no image is named", "images/5.png": "no label"}
    assert len(data) == 10 and "images/4.png" in data.ids and "images/3.png" not in data.ids


BAD_TABLES = {
    "no column": (rows(head=("file", "label", "patient")), {}, "no column 'image'; it has file, label, patient"),
    "named patient": (rows(), {"patient": "mrn"}, "no column 'mrn'"),
    "unknown label": (rows(), {"classes": ["normal", "covid"]}, "unknown label 'ödem' of images/0.png"),
    "no file at all": (rows().replace("images/", "nowhere/"), {}, "no row can be used; the first: nowhere/0.png: no such file"),
    "no labels": (rows().replace("ödem", "").replace("normal", "nan"), {}, "no row can be used.*no label"),
    "one class": (rows().replace("ödem", "normal"), {}, "one class only"),
    "empty": (" \n", {}, "empty"),
    "header only": ("image,label\n", {}, "a heading and no rows"),
    "binary": ("\0\1\2", {}, "not a text table"),
    "ragged": ("image,label\n" + "a,b,c,d\n" * 3 + "a\n" + "a,b,c,d,e,f\n", {}, "same cells in every row"),
    "no split in a row": (rows().replace("patient\n", "patient,split\n").replace("P1\n", "P1,train\n"), {}, "unknown split ''"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_one_line(tmp_path, case):
    text, options, says = BAD_TABLES[case]
    with pytest.raises(DataError, match=says) as caught:
        load(table(tmp_path, text), **options)
    assert "\n" not in str(caught.value).rstrip() and "labels.csv" in str(caught.value)


def test_a_leaking_table_names_the_patients_and_can_be_accepted(tmp_path):
    lines = rows().splitlines()
    text = "\n".join([lines[0] + ",split"] + [f"{line},{('train', 'test')[row in (3, 7)]}" for row, line in enumerate(lines[1:])])
    with pytest.raises(DataError, match=r"2 patients stand in two splits \(P1, P3\)"):
        load(table(tmp_path, text))
    data = load(tmp_path / "labels.csv", allow_leak=True)
    assert any(note.startswith("LEAK accepted: 2") for note in data.card.notes)


def test_no_readable_image_and_no_classes(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no readable image; the first: no image in this folder"):
        load(tmp_path)
    (tmp_path / "a" / "x.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="no readable image"):
        load(tmp_path)
    with pytest.raises(DataError, match="a folder for each class"):
        load(tmp_path / "a")


# ---- DICOM

def dicom_folder(root, patients=8, images=2):
    from medbook.images.writing import write_image
    for patient in range(patients):
        folder = root / ("normal", "nodule")[patient % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for place in range(images):
            pixels = np.random.default_rng(10 * patient + place).integers(0, 4000, (24, 24), dtype=np.uint16)
            write_image(folder / f"{patient}_{place}.dcm", pixels, modality="DX", PatientID=f"P{patient}")
    return root


def test_dicom_folder_takes_patients_from_the_headers(tmp_path):
    data = load(dicom_folder(tmp_path))
    assert data.shape == (24, 24, 1) and set(data.patients) == {f"P{patient}" for patient in range(8)}
    assert data.classes == ["normal", "nodule"] and not datasets.shared_patients(data.patients, data.splits)
    batch = data.batch(slice(None))
    assert batch.dtype == np.float32 and batch.min() >= 0 and batch.max() <= 1 and (np.ptp(batch, axis=(1, 2, 3)) > 0.9).all()
    quick = load(tmp_path, check=False)
    assert (quick.patients == data.patients).all() and (quick.splits == data.splits).all()


def test_every_odd_dicom_file_is_an_image_or_a_problem(shared, tmp_path):
    files = sorted(path for path in (shared / "dicom" / "pydicom-data").rglob("*") if path.is_file())
    for row, path in enumerate(files):
        folder = tmp_path / ("a", "b")[row % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{row:03d}.dcm").symlink_to(path)
    data = load(tmp_path, size=32)
    assert len(data) + (data.problems.error.str.startswith("same pixels") == 0).sum() == len(files) and len(data) > len(files) / 3
    batch = data.batch(slice(None))
    assert np.isfinite(batch).all() and batch.min() >= 0 and batch.max() <= 1
    assert not data.problems.error.str.contains("\n").any()


def test_hounsfield_units_go_through_one_window(tmp_path):
    from pydicom.data import get_testdata_file

    from medbook.images.dicom import WINDOWS, read_image
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.dcm").symlink_to(get_testdata_file("CT_small.dcm"))
    for name in ("lung", "soft tissue"):
        center, width = WINDOWS[name]
        pixels = read_image(tmp_path / "a" / "ct.dcm").pixels
        expected = np.clip((pixels - (center - width / 2)) / width, 0, 1)
        read = datasets.read_pixels(tmp_path / "a" / "ct.dcm", name)[0][..., 0]
        assert np.abs(read - expected).max() < 0.01


def test_phantoms_are_made_once_and_read(monkeypatch):
    data = load("phantoms", patients=12, seed=1, size=32)
    assert data.shape == (32, 32, 1) and data.card.title.startswith("Phantoms") and data.task == "binary"
    assert data.patients is not None and not datasets.shared_patients(data.patients, data.splits) and data.classes[1] != "normal"
    folder = datasets.make_phantoms(patients=12, seed=1)
    monkeypatch.setattr("medbook.images.phantoms.write_study", lambda *a, **k: pytest.fail("written twice"))
    assert datasets.make_phantoms(patients=12, seed=1) == folder


# ---- finding and fetching

def test_names_paths_and_options_that_are_wrong(tmp_path):
    picture(tmp_path / "x.png")
    for name, says in (("pneumoniamnits", "did you mean pneumoniamnist"), ("zzzz", "The cards are bccd"),
                       (tmp_path / "no.npz", "no such file"), (tmp_path / "x.png", "not a .npz, a CSV table or a folder")):
        with pytest.raises(DataError, match=says):
            load(name)
    with pytest.raises(DataError, match="no option 'clases'"):
        load(class_folder(tmp_path / "set"), clases=["a"])
    for size in (0, -3, (1, 2, 3), "big", 2.5):
        with pytest.raises(DataError, match="give a side"):
            load(tmp_path / "set", size=size)
    with pytest.raises(DataError, match="put bccd_crops32.npz into the folder"):
        load("bccd")


def test_the_data_folder_is_searched_first(tmp_path, monkeypatch):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    medmnist(tmp_path / "deep" / "er" / "breastmnist.npz")
    monkeypatch.setenv("MEDBOOK_DATA", str(tmp_path))
    data = load("breastmnist")
    assert len(data) == 40 and data.classes[0] == "malignant"
    assert "byte for byte" in data.card.notes[-2] and "other counts" in data.card.notes[-1]
    assert len(load("deep/er/breastmnist.npz")) == 40 and load("breastmnist", size=20).shape == (20, 20, 1)
    medmnist(tmp_path / "breastmnist_64.npz", sizes=(30, 10, 10), shape=(64, 64))
    assert len(load("breastmnist", size=64)) == 50 and load("breastmnist", size=48).shape == (48, 48, 1)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine that holds one data set, and a card that names it."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder = tmp_path / "www"
    folder.mkdir()
    medmnist(folder / "toymnist.npz")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url, md5 = f"http://127.0.0.1:{web.server_port}/toymnist.npz", hashlib.md5((folder / "toymnist.npz").read_bytes()).hexdigest()
    yield lambda **change: Card("toymnist", classes=("a", "b"), task="binary", shape=(28, 28, 1),
                                files={"28": {"url": url, "md5": md5} | change})
    web.shutdown()
    web.server_close()


def test_download_with_the_right_hash_is_kept(server, monkeypatch):
    data = datasets.load_card(server())
    assert len(data) == 40 and [path.name for path in datasets.cache_folder().iterdir()] == ["toymnist.npz"]
    assert len(datasets.load_card(server(url="http://127.0.0.1:9/toymnist.npz"))) == 40     # from the cache, no connection


def test_long_work_shows_a_bar_on_a_terminal(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    datasets.load_card(server())
    load(class_folder(tmp_path / "set"), progress=True)
    shown = capsys.readouterr().err
    assert "fetching toymnist.npz" in shown and "checking files" in shown
    load(tmp_path / "set", progress=False)
    assert capsys.readouterr().err == ""


def test_download_with_a_wrong_hash_is_thrown_away(server):
    with pytest.raises(DataError, match="has not the published MD5 0000"):
        datasets.load_card(server(md5="0" * 32))
    assert list(datasets.cache_folder().iterdir()) == []


@pytest.mark.parametrize("change", [{"url": "http://127.0.0.1:9/toymnist.npz"}, {"url": "lost"}])
def test_offline_says_where_to_put_the_file(server, change):
    url = change["url"] if ":" in change["url"] else server().files["28"]["url"].replace("toymnist.npz", "lost.npz")
    with pytest.raises(DataError, match="toymnist.npz: cannot be downloaded .*MEDBOOK_DATA") as caught:
        datasets.load_card(server(url=url))
    assert "\n" not in str(caught.value)


# ---- Dataset

def test_digest_tells_every_change(tmp_path):
    images, labels = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8), np.arange(30) % 2
    base = from_arrays(images, labels)
    changed = images.copy()
    changed[3, 2, 1] ^= 1
    others = [from_arrays(changed, labels), from_arrays(images, 1 - labels), from_arrays(images, labels, seed=1)]
    assert len({data.digest() for data in (base, *others)}) == 4 and base.digest() == from_arrays(images.copy(), labels).digest()
    data = load(class_folder(tmp_path))
    before = data.digest()
    assert before == load(tmp_path).digest()
    picture(tmp_path / data.ids[0], seed=999)
    assert load(tmp_path).digest() != before


def test_batch_summary_and_looks():
    images = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    data = from_arrays(images, np.arange(30) % 3, classes=["a<b", "b", "c"])
    np.testing.assert_array_equal(data.batch(np.array([4, 1])), images[[4, 1]] / np.float32(255))
    table_ = data.summary()
    assert isinstance(table_, pd.DataFrame) and table_.loc["all images", "all"] == 30 and (table_.iloc[:3]["all"] == 10).all()
    assert "train 21" in repr(data) and "a&lt;b" in data._repr_html_() and len(data.subset("train")) == 21
    assert len(data.show(4).axes) == 12
    with pytest.raises(DataError, match="no split is called 'val'"):
        data.subset("val")


@pytest.mark.parametrize("dtype, low, high", [(np.uint16, 0, 4000), (np.int16, -1000, 3000), (np.int64, 0, 255), (bool, 0, 2)])
def test_other_number_types_come_out_in_0_to_1(dtype, low, high):
    data = from_arrays(RNG.integers(low, high, (10, 6, 6)).astype(dtype), np.arange(10) % 2)
    batch = data.batch(slice(None))
    assert batch.dtype == np.float32 and batch.min() >= 0 and batch.max() <= 1 and np.ptp(batch) > 0.5


def test_wide_integers_are_scaled_by_one_range_over_all_splits(tmp_path):
    rng = np.random.default_rng(0)
    tops = {"train": 1000, "val": 200, "test": 60000}
    arrays = {f"{name}_images": rng.integers(0, top, (20, 8, 8), dtype="uint16") for name, top in tops.items()}
    labels = {f"{name}_labels": rng.integers(0, 2, (20, 1)) for name in tops}
    np.savez(tmp_path / "wide.npz", **arrays, **labels)
    loaded = load(tmp_path / "wide.npz")
    means = [loaded.subset(name).images.mean() for name in ("train", "valid", "test")]
    assert means[1] < means[0] < means[2] / 20


def test_a_patient_column_is_found_by_its_usual_names_and_absence_by_its_usual_words(tmp_path):
    import cv2

    rows = ["File,diagnosis,Patient ID"]
    for place in range(24):
        cv2.imwrite(str(tmp_path / f"{place}.png"), np.random.default_rng(place).integers(0, 255, (8, 8), dtype="uint8"))
        rows.append(f"{place}.png,{['disease', 'no disease'][place // 4 % 2]},P{place // 4}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    loaded = load(tmp_path / "table.csv", image="File", label="diagnosis")
    assert loaded.classes == ["no disease", "disease"] and len(set(loaded.patients)) == 6
