"""Contracts of medbook.images.decoding: bad files are one line, silently, and take no memory."""

import errno
import io
import logging
import os
import random
import shutil
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import get_decoder
from pydicom.uid import (
    RLELossless,
)

from medbook.images import decoding, headers
from medbook.images import (
    DicomError,
    index_folder,
    read_image,
    read_series,
    read_waveform,
    write_image,
)
from tests.dicom_files import COMPRESSED, CT, MR, SHIPPED, WHEEL, changed, fault, planted


def test_nothing_is_printed_warned_or_logged(shared, capfd, caplog):
    filters = list(warnings.filters)
    logger = logging.getLogger("pydicom")
    before = logger.propagate, pydicom.config.settings.reading_validation_mode
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for path in [*WHEEL.glob("*.dcm"), *(shared / "dicom" / "pydicom-data").iterdir()]:
            try:
                read_image(path)
            except DicomError:
                pass
    assert (
        not seen
        and capfd.readouterr() == ("", "")
        and not [record for record in caplog.records if "pydicom" in record.name]
    )
    assert (
        warnings.filters == filters
        and (logger.propagate, pydicom.config.settings.reading_validation_mode) == before
    )


def test_threads_leave_the_warnings_as_they_were():
    filters = list(warnings.filters)
    paths = [CT, MR, WHEEL / "badVR.dcm", *COMPRESSED] * 12

    def read(path):
        try:
            return read_image(path).pixels.sum()
        except DicomError:
            return None

    expected = [read(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, paths)) == expected
    assert warnings.filters == filters


def test_unused_bits_are_cleared(tmp_path):
    stored = np.array([[0x0FFF, 0xF001], [0x8800, 0x07FF]], np.uint16)
    path = write_image(tmp_path / "x.dcm", stored)
    changed(path, path, BitsStored=12, HighBit=11)
    assert read_image(path).pixels.tolist() == [[4095, 1], [2048, 2047]]
    changed(path, path, PixelRepresentation=1)
    assert read_image(path).pixels.tolist() == [[-1, 1], [-2048, 2047]]


def test_bad_files_are_one_line_with_the_fault(tmp_path):
    for path, word in planted(tmp_path).items():
        assert word in fault(read_image, path), path.name
    assert "no such file" in fault(read_image, tmp_path / "missing.dcm")
    assert "folder" in fault(read_image, tmp_path)


def test_a_lying_header_takes_no_memory(tmp_path):
    paths = [path for path in planted(tmp_path) if path.stem.startswith(("huge", "frames"))]
    tracemalloc.start()
    try:
        for path in paths:
            fault(read_image, path)
        assert len(paths) == 6 and tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_unreadable_file(tmp_path, monkeypatch):
    shutil.copy(CT, tmp_path / "x.dcm")

    def refuse(path, mode, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for module in (decoding, headers):
        monkeypatch.setattr(module, "open", refuse, raising=False)
    assert "Permission denied" in fault(read_image, tmp_path / "x.dcm")


def test_a_disk_that_fails_while_reading(tmp_path, monkeypatch):
    shutil.copy(CT, tmp_path / "x.dcm")

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if size > 1000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    def opened(path, mode, **options):
        return Failing(Path(path).read_bytes())

    for module in (decoding, headers):
        monkeypatch.setattr(module, "open", opened, raising=False)
    assert "cannot be read (Input/output error)" in fault(read_image, tmp_path / "x.dcm")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "ordinary" in fault(read_image, tmp_path / "pipe")
    assert "ordinary" in index_folder(tmp_path).error[0]


@pytest.mark.parametrize(
    "path, package",
    zip(
        COMPRESSED, ["pylibjpeg-rle", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm"], strict=True
    ),
    ids=lambda value: getattr(value, "stem", None),
)
def test_missing_decoder_names_the_package(monkeypatch, path, package):
    decoder = get_decoder(pydicom.dcmread(path).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {})
    assert f"pip install {package}" in fault(read_image, path)


def test_a_decoder_that_fills_with_grey_is_caught(tmp_path):
    """libjpeg reports success on half a stream; its remark on standard error is the only sign."""
    dataset = pydicom.dcmread(COMPRESSED[3])
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    half = stream[: len(stream) // 2] + b"\xff\xd9"
    dataset.PixelData = pydicom.encaps.encapsulate([half + b"\0" * (len(half) % 2)])
    dataset.save_as(tmp_path / "half.dcm")
    assert "cannot be decoded" in fault(read_image, tmp_path / "half.dcm")


FUZZED = [path for path in SHIPPED if path.suffix == ".dcm" and path.stat().st_size < 50_000]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_damaged_bytes_give_a_result_or_a_dicom_error(tmp_path_factory, seed):
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("fuzz") / "x.dcm"
    for _ in range(4):
        data = bytearray(rng.choice(FUZZED).read_bytes())
        if rng.random() < 0.4:
            data = data[: rng.randrange(len(data) + 1)]
        for _ in range(rng.choice([0, 1, 5, 30]) if data else 0):
            data[rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 2500))] = (
                rng.randrange(256)
            )
        path.write_bytes(data)
        for call in (read_image, read_waveform, read_series):
            try:
                call(path if call is not read_series else [path])
            except DicomError as error:
                assert "\n" not in str(error) and str(path.parent) in str(error)
        assert len(index_folder([path])) == 1


def test_compressed_copy_reads_the_same(tmp_path):
    dataset = pydicom.dcmread(CT)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    image = read_image(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(image.pixels, read_image(CT).pixels)
    assert image.units == "HU" and image.dataset.PatientID == dataset.PatientID
