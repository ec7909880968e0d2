"""Sources: every way in, and bad input as one line that names the file."""

import inspect
import pickle

import cv2
import numpy as np
import pytest

from medbook.images import DataError, cards, datasets, from_npz, load
from tests.image_sets import RNG, class_folder, medmnist, own_folders, picture, save  # noqa: F401


# ---- real sets


@pytest.mark.parametrize(
    "name, counts, twins",
    [("breastmnist", (546, 78, 156), 1), ("pneumoniamnist", (4708, 524, 624), 8)],
)
def test_medmnist_by_name_and_by_file(shared, name, counts, twins):
    data = load(name)
    assert (
        tuple(data.card.counts.values()) == counts
        and data.shape == (28, 28, 1)
        and data.task == "binary"
    )
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
    assert ((table["test"] / table["all"]).between(0.19, 0.21)).all() and table.loc[
        "RBC", "all"
    ] == 4153
    assert not any("byte for byte" in note for note in data.card.notes)


# ---- .npz


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (64, 64), (224, 224, 3)])
@pytest.mark.parametrize("many", [False, True])
def test_official_layouts(tmp_path, shape, many):
    draw = (
        (lambda n: RNG.integers(0, 2, (n, 14))) if many else (lambda n: (np.arange(n) % 3)[:, None])
    )
    raw = medmnist(tmp_path / "set.npz", shape=shape, labels=draw)
    data = load(tmp_path / "set.npz")
    assert data.task == ("multi-label" if many else "multi-class") and data.shape == (*shape, 1)[:3]
    assert data.labels.shape == ((40, 14) if many else (40,)) and len(data.summary()) == (
        16 if many else 4
    )
    expected = raw["test_images"].reshape(12, *data.shape) / np.float32(255)
    np.testing.assert_array_equal(data.subset("test").batch(slice(None)), expected)


def test_plain_npz_with_everything(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        images=RNG.random((30, 8, 8)),
        labels=np.array(["cat", "dog"])[np.arange(30) % 2],
        groups=np.arange(30) // 3,
        splits=np.repeat(["Training", "val", "TEST"], [18, 6, 6]),
        ids=np.arange(30),
    )
    data = load(tmp_path / "a.npz")
    assert (
        data.classes == ["cat", "dog"]
        and data.images.dtype == np.float32
        and data.patients[29] == "9"
        and data.ids[3] == "3"
    )
    assert data.card.counts == {"train": 18, "valid": 6, "test": 6}


NAN = np.full((10, 8, 8), np.nan)


BAD_NPZ = {
    "pickled objects": (
        lambda p: save(p, labels=np.array(["a", None] * 5, object)),
        "refused; save plain",
    ),
    "pickled images": (
        lambda p: save(p, images=np.array([1, [2]] * 5, object)),
        "'images' holds pickled objects",
    ),
    "no images": (lambda p: save(p, images=None), "it holds labels"),
    "no labels": (lambda p: save(p, labels=None), "it holds images"),
    "lengths": (lambda p: save(p, labels=np.arange(9) % 2), "10 images but 9 labels"),
    "patients": (lambda p: save(p, patients=np.arange(9)), "10 images but 9 patients"),
    "volume": (lambda p: save(p, images=np.zeros((10, 8, 8, 8))), "volumes and other shapes"),
    "channels first": (lambda p: save(p, images=np.zeros((10, 3, 8, 8))), "moveaxis"),
    "flat": (lambda p: save(p, images=np.zeros((10, 64))), "shape"),
    "words as pixels": (lambda p: save(p, images=np.full((10, 8, 8), "x")), "numbers are needed"),
    "no rows": (
        lambda p: save(p, images=np.zeros((0, 8, 8)), labels=np.zeros(0)),
        "holds no image",
    ),
    "NaN": (lambda p: save(p, images=NAN), "NaN or infinite"),
    "infinite": (lambda p: save(p, images=NAN * 0 + np.inf), "NaN or infinite"),
    "one class": (lambda p: save(p, labels=np.ones(10, int)), "one class only"),
    "fractions": (lambda p: save(p, labels=np.linspace(0, 1, 10)), "fractions"),
    "missing label": (
        lambda p: save(p, labels=np.array([0, 1] * 4 + [np.nan, 1])),
        "missing values",
    ),
    "unknown label": (lambda p: save(p, classes=np.array(["a"])), "unknown label 1 in row 1"),
    "unknown word": (
        lambda p: save(p, labels=np.array(["a", "b"] * 5), classes=np.array(["a", "c"])),
        "unknown label 'b'",
    ),
    "multi-label 2": (lambda p: save(p, labels=np.full((10, 3), 2)), "only 0 and 1"),
    "unknown split": (
        lambda p: save(p, splits=np.array(["train", "later"] * 5)),
        "unknown split 'later'",
    ),
    "no train": (lambda p: save(p, splits=np.array(["test"] * 10)), "no train rows"),
    "patient in two splits": (
        lambda p: save(p, patients=np.arange(10) // 2, splits=np.array(["train", "test"] * 5)),
        r"5 patients .*\(0, 1",
    ),
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
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            from_npz(path)
        except DataError as error:
            assert "cut.npz" in str(error)


def test_missing_official_labels_and_unequal_splits(tmp_path):
    raw = medmnist(tmp_path / "a.npz")
    np.savez(
        tmp_path / "b.npz", **{key: value for key, value in raw.items() if key != "val_labels"}
    )
    np.savez(tmp_path / "c.npz", **raw | {"val_labels": raw["val_labels"][:-1]})
    np.savez(tmp_path / "d.npz", **raw | {"val_images": raw["val_images"][:, :20]})
    for name, says in (
        ("b", "no array 'val_labels'"),
        ("c", "8 val_images but 7 val_labels"),
        ("d", "differ in shape"),
    ):
        with pytest.raises(DataError, match=says):
            load(tmp_path / f"{name}.npz")


def test_wide_integers_are_scaled_by_one_range_over_all_splits(tmp_path):
    rng = np.random.default_rng(0)
    tops = {"train": 1000, "val": 200, "test": 60000}
    arrays = {
        f"{name}_images": rng.integers(0, top, (20, 8, 8), dtype="uint16")
        for name, top in tops.items()
    }
    labels = {f"{name}_labels": rng.integers(0, 2, (20, 1)) for name in tops}
    np.savez(tmp_path / "wide.npz", **arrays, **labels)
    loaded = load(tmp_path / "wide.npz")
    means = [loaded.subset(name).images.mean() for name in ("train", "valid", "test")]
    assert means[1] < means[0] < means[2] / 20


# ---- folders and tables


def test_folder_of_classes_reads_the_pixels_written(tmp_path):
    data = load(class_folder(tmp_path), patient="P[0-9]+")
    assert (
        data.classes == ["normal", "sick"]
        and data.shape == (20, 24, 1)
        and data.images.dtype == np.float32
    )
    assert len(np.unique(data.patients)) == 12 and not datasets.shared_patients(
        data.patients, data.splits
    )
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
    assert (
        data.shape == (64, 64, 3)
        and len(data) == 26
        and "read at 64 × 64" in " ".join(data.card.notes)
    )
    assert data.problems.file.str.endswith("bad.png").sum() == 2
    assert set(zip(data.splits, [name.split("/")[0] for name in data.ids], strict=True)) == {
        ("train", "train"),
        ("valid", "Validation"),
        ("test", "test"),
    }
    assert load(tmp_path, size=(16, 20), fit="pad").shape == (16, 20, 3)


def test_the_same_picture_in_two_split_folders_is_a_problem(tmp_path):
    for name in ("train", "test"):
        class_folder(tmp_path / name, 4)
    assert len(load(tmp_path).problems) == 8


def table(root, text, name="labels.csv", encoding="utf-8"):
    for row in range(12):
        picture(root / "images" / f"{row}.png", seed=row)
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def rows(sep=",", head=("image", "label", "patient")):
    lines = [sep.join(head)] + [
        sep.join(
            (
                f"images/{row}.png",
                ("ödem", "normal")[row % 2],
                f"P{row // 2}"[: None if len(head) > 2 else 0],
            )
        ).rstrip(sep)
        for row in range(12)
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_tables_as_people_save_them(tmp_path, sep, encoding):
    data = load(table(tmp_path, rows(sep).replace("/", "\\"), encoding=encoding))
    assert (
        data.classes == ["normal", "ödem"]
        and len(data) == 12
        and len(np.unique(data.patients)) == 6
    )
    assert load(tmp_path).digest() == data.digest()  # the folder finds its labels.csv


def test_table_with_own_column_names_and_splits(tmp_path):
    lines = rows(head=("File", "Dx", "MRN")).splitlines()
    text = "\n".join(
        [lines[0] + ",Set"]
        + [f"{line},{('train', 'val', 'test')[row // 4]}" for row, line in enumerate(lines[1:])]
    )
    data = load(table(tmp_path, text), image="File", label="Dx", patient="MRN", split="Set")
    assert data.card.counts == {"train": 4, "valid": 4, "test": 4}
    moved = tmp_path / "elsewhere" / "t.csv"
    moved.parent.mkdir()
    moved.write_text(text, encoding="utf-8")
    assert (
        len(load(moved, folder=tmp_path, image="File", label="Dx", patient="MRN", split="Set"))
        == 12
    )


def test_rows_that_cannot_be_used_are_listed(tmp_path):
    extra = "images/99.png,normal,P9\nimages/3.png,ödem,P1\nimages/4.png,ödem,P2\n"
    extra += ",normal,P7\nimages/5.png,,P2\n"
    text = rows().replace("images/5.png,normal,P2\n", "") + extra
    data = load(table(tmp_path, text))
    told = dict(zip(data.problems.file, data.problems.error, strict=True))
    assert told == {
        "images/99.png": "no such file",
        "images/3.png": "named in several rows with different labels",
        "images/4.png": "named twice",
        "row 16": "no image is named",
        "images/5.png": "no label",
    }
    assert len(data) == 10 and "images/4.png" in data.ids and "images/3.png" not in data.ids


BAD_TABLES = {
    "no column": (
        rows(head=("file", "label", "patient")),
        {},
        "no column 'image'; it has file, label, patient",
    ),
    "named patient": (rows(), {"patient": "mrn"}, "no column 'mrn'"),
    "unknown label": (
        rows(),
        {"classes": ["normal", "covid"]},
        "unknown label 'ödem' of images/0.png",
    ),
    "no file at all": (
        rows().replace("images/", "nowhere/"),
        {},
        "no row can be used; the first: nowhere/0.png: no such file",
    ),
    "no labels": (
        rows().replace("ödem", "").replace("normal", "nan"),
        {},
        "no row can be used.*no label",
    ),
    "one class": (rows().replace("ödem", "normal"), {}, "one class only"),
    "empty": (" \n", {}, "empty"),
    "header only": ("image,label\n", {}, "a heading and no rows"),
    "binary": ("\0\1\2", {}, "not a text table"),
    "ragged": (
        "image,label\n" + "a,b,c,d\n" * 3 + "a\n" + "a,b,c,d,e,f\n",
        {},
        "same cells in every row",
    ),
    "no split in a row": (
        rows().replace("patient\n", "patient,split\n").replace("P1\n", "P1,train\n"),
        {},
        "unknown split ''",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_one_line(tmp_path, case):
    text, options, says = BAD_TABLES[case]
    with pytest.raises(DataError, match=says) as caught:
        load(table(tmp_path, text), **options)
    assert "\n" not in str(caught.value).rstrip() and "labels.csv" in str(caught.value)


def test_a_leaking_table_names_the_patients_and_can_be_accepted(tmp_path):
    lines = rows().splitlines()
    text = "\n".join(
        [lines[0] + ",split"]
        + [f"{line},{('train', 'test')[row in (3, 7)]}" for row, line in enumerate(lines[1:])]
    )
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


def test_a_patient_column_is_found_by_its_usual_names_and_absence_by_its_usual_words(tmp_path):
    import cv2

    rows = ["File,diagnosis,Patient ID"]
    for place in range(24):
        cv2.imwrite(
            str(tmp_path / f"{place}.png"),
            np.random.default_rng(place).integers(0, 255, (8, 8), dtype="uint8"),
        )
        rows.append(f"{place}.png,{['disease', 'no disease'][place // 4 % 2]},P{place // 4}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    loaded = load(tmp_path / "table.csv", image="File", label="diagnosis")
    assert loaded.classes == ["no disease", "disease"] and len(set(loaded.patients)) == 6


# ---- DICOM


def dicom_folder(root, patients=8, images=2):
    from medbook.images.writing import write_image

    for patient in range(patients):
        folder = root / ("normal", "nodule")[patient % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for place in range(images):
            pixels = np.random.default_rng(10 * patient + place).integers(
                0, 4000, (24, 24), dtype=np.uint16
            )
            write_image(
                folder / f"{patient}_{place}.dcm", pixels, modality="DX", PatientID=f"P{patient}"
            )
    return root


def test_dicom_folder_takes_patients_from_the_headers(tmp_path):
    data = load(dicom_folder(tmp_path))
    assert data.shape == (24, 24, 1) and set(data.patients) == {
        f"P{patient}" for patient in range(8)
    }
    assert data.classes == ["normal", "nodule"] and not datasets.shared_patients(
        data.patients, data.splits
    )
    batch = data.batch(slice(None))
    assert (
        batch.dtype == np.float32
        and batch.min() >= 0
        and batch.max() <= 1
        and (np.ptp(batch, axis=(1, 2, 3)) > 0.9).all()
    )
    quick = load(tmp_path, check=False)
    assert (quick.patients == data.patients).all() and (quick.splits == data.splits).all()


def test_every_odd_dicom_file_is_an_image_or_a_problem(shared, tmp_path):
    files = sorted(
        path for path in (shared / "dicom" / "pydicom-data").rglob("*") if path.is_file()
    )
    for row, path in enumerate(files):
        folder = tmp_path / ("a", "b")[row % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{row:03d}.dcm").symlink_to(path)
    data = load(tmp_path, size=32)
    assert (
        len(data) + (data.problems.error.str.startswith("same pixels") == 0).sum() == len(files)
        and len(data) > len(files) / 3
    )
    batch = data.batch(slice(None))
    assert np.isfinite(batch).all() and batch.min() >= 0 and batch.max() <= 1
    assert not data.problems.error.str.contains("\n").any()


# ---- one call


def test_names_paths_and_options_that_are_wrong(tmp_path):
    picture(tmp_path / "x.png")
    for name, says in (
        ("pneumoniamnits", "did you mean pneumoniamnist"),
        ("zzzz", "The cards are bccd"),
        (tmp_path / "no.npz", "no such file"),
        (tmp_path / "x.png", "not a .npz, a CSV table or a folder"),
    ):
        with pytest.raises(DataError, match=says):
            load(name)
    with pytest.raises(DataError, match="no option 'clases'"):
        load(class_folder(tmp_path / "set"), clases=["a"])
    for size in (0, -3, (1, 2, 3), "big", 2.5):
        with pytest.raises(DataError, match="give a side"):
            load(tmp_path / "set", size=size)
    with pytest.raises(DataError, match="put bccd_crops32.npz into the folder"):
        load("bccd")


def test_the_keywords_are_listed_and_their_defaults_are_those_of_the_readers(tmp_path):
    shown = inspect.signature(load).parameters
    for name in (
        "size",
        "image",
        "label",
        "patient",
        "split",
        "folder",
        "classes",
        "window",
        "fit",
    ):
        assert name in shown
    from medbook.images import from_folder, from_table

    for reader in (from_table, from_npz, from_folder):
        for one in inspect.signature(reader).parameters.values():
            if one.kind == one.KEYWORD_ONLY and one.name not in ("card", "patient"):
                assert shown[one.name].default == one.default, one.name
    save(tmp_path / "a.npz")
    for options, says in (
        ({"window": "lung"}, "no option 'window' here; the options are size"),
        ({"patients": 3}, "no option 'patients' here"),
        ({"patient": None}, "no option 'patient' here"),
    ):
        with pytest.raises(DataError, match=says):
            load(tmp_path / "a.npz", **options)


def test_none_leaves_a_column_out(tmp_path):
    lines = rows().splitlines()
    text = "\n".join([lines[0] + ",split"] + [f"{line},train" for line in lines[1:]])
    path = table(tmp_path, text)
    assert set(load(path, split=None).splits) == {"train", "valid", "test"}
    assert load(path, patient=None).patients is None and load(path).patients is not None


@pytest.mark.parametrize("wrong", [None, 3, np.zeros((2, 4, 4)), ["a", "b"]])
def test_what_is_no_path_is_refused_with_the_call_that_takes_arrays(wrong):
    with pytest.raises(DataError, match=r"no name and no path; arrays go to `from_arrays"):
        load(wrong)
