"""Image files: what stands on disk looks like an array, costs no memory, and says what is wrong."""

import tracemalloc

import numpy as np
import pytest

from medbook.images import DataError, load
from medbook.images.image_files import read_pixels
from tests.image_sets import class_folder, own_folders, picture  # noqa: F401


def test_padding_keeps_proportions_and_stretching_fills(tmp_path):
    for name in ("a", "b"):
        for row in range(3):
            picture(tmp_path / name / f"{row}.png", value=200 + row, shape=(10, 20))
    stretched, padded = (load(tmp_path, size=20, fit=fit).images[0] for fit in ("stretch", "pad"))
    assert (stretched > 0.7).all() and (padded[:5] == 0).all() and (padded[5:15] > 0.7).all()


def test_reading_needs_no_memory_for_each_image(tmp_path):
    def peak(count):
        root = tmp_path / str(count)
        class_folder(root, count // 2, shape=(128, 128))
        load(root)  # imports and caches beforehand
        tracemalloc.start()
        data = load(root)
        total = sum(
            float(data.batch(np.arange(start, min(start + 16, count))).sum())
            for start in range(0, count, 16)
        )
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 0
        return memory

    few = peak(32)
    many = peak(320)
    assert many - few < 2e6 < 288 * 128 * 128 * 4  # all pixels would be 18.9 MB more


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
        read = read_pixels(tmp_path / "a" / "ct.dcm", name)[0][..., 0]
        assert np.abs(read - expected).max() < 0.01
