"""How fast DICOM files are read, against pydicom itself."""

import tempfile
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from medbook.images import index_folder, read_image
from medbook.images.decoding import reading
from medbook.images.headers import _header_row, _slow_row
from tests.bench import faster


def ct_slice(path):
    """A real CT slice of 512 × 512 pixels with 16 bits, uncompressed."""
    dataset = pydicom.dcmread(get_testdata_file("693_J2KI.dcm"))
    dataset.decompress(generate_instance_uid=False)
    dataset.save_as(path)
    return path


def rle_slice(source, path):
    """The same slice, run-length encoded."""
    dataset = pydicom.dcmread(source)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    return path


def headers(folder, count=10_000):
    """Files of a real CT header, each with identifiers of its own, and a small image."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.Rows = 8
    dataset.Columns = 8
    dataset.PixelData = dataset.PixelData[:128]
    for number in range(count):
        if number % 100 == 0:
            place = folder / f"patient{number // 100:03}"
            place.mkdir()
            dataset.PatientID = f"P{number // 100:03}"
        dataset.InstanceNumber = number
        dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(place / f"{number:05}.dcm")
    return sorted(folder.rglob("*.dcm"))


def own_decoder(path):
    """Pixels by the run-length decoder in Python that pydicom brings."""
    return get_decoder(RLELossless).as_array(pydicom.dcmread(path), decoding_plugin="pydicom")[0]


def slices(call, path, count=10):
    """Read the slice some times, as in a series."""
    for _ in range(count):
        call(path)


def stop_before_pixels(paths):
    """Headers by pydicom alone."""
    for path in paths:
        pydicom.dcmread(path, stop_before_pixels=True)


def by_pydicom(paths):
    """Rows of the index by the way that reads any file, without the second parser of headers."""
    for path in paths:
        with reading(path):
            _slow_row(path)


def rows():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct = ct_slice(folder / "ct.dcm")
        rle = rle_slice(ct, folder / "rle.dcm")
        yield faster(
            "10 slices of 512×512 CT from file to HU float32, s; other: pydicom's bare pixel_array",
            lambda: slices(read_image, ct),
            lambda: slices(lambda path: pydicom.dcmread(path).pixel_array, ct),
            ">= 1",
            repeats=15,
        )
        yield faster(
            "10 slices of 512×512 CT, RLE, from file to HU float32, s; "
            "other: pydicom's built-in decoder",
            lambda: slices(read_image, rle),
            lambda: slices(own_decoder, rle),
            ">= 4",
            repeats=15,
        )
        paths = headers(folder)
        yield faster(
            "index_folder on 10,000 headers, s; "
            "other: a loop over dcmread(stop_before_pixels=True)",
            lambda: index_folder(folder),
            lambda: stop_before_pixels(paths),
            ">= 1.5",
            repeats=3,
        )
        yield faster(
            "1,000 rows of the index by the second parser of headers, s; other: by pydicom",
            lambda: [_header_row(path) for path in paths[:1000]],
            lambda: by_pydicom(paths[:1000]),
            ">= 3",
        )
