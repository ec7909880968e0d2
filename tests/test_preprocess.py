"""Pictures: what comes out of good and bad files, and what resizing and scaling must keep."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medbook.images import preprocess as pre
from medbook.images.preprocess import ImageError, load_image, resize

PICTURES = Path(skimage.__file__).parent / "data"
few = settings(max_examples=25, deadline=None)
images = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.floats(-1e3, 1e3, width=32),
)


# --- loading ---


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def colour():
    return np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "name", ["retina.jpg", "ihc.png", "microaneurysms.png", "camera.png", "cell.png"]
)
def test_real_pictures_equal_scikit_images_reader(name):
    expected = skimage.io.imread(PICTURES / name)
    image = load_image(PICTURES / name)
    assert image.dtype == np.uint8 and (image == expected).all()


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_colours_keep_their_order(folder, colour, ending):
    Image.fromarray(colour).save(folder / f"a.{ending}")
    assert (load_image(folder / f"a.{ending}") == colour).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_sixteen_bits_are_kept(folder, ending, shape):
    deep = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    cv2.imwrite(str(folder / f"a.{ending}"), deep if len(shape) == 2 else deep[..., ::-1])
    image = load_image(folder / f"a.{ending}")
    assert image.dtype == np.uint16 and (image == deep).all()


@pytest.mark.parametrize(
    "mode, shape",
    [("1", (40, 30)), ("L", (40, 30)), ("LA", (40, 30)), ("P", (40, 30, 3)), ("RGBA", (40, 30, 3))],
)
def test_every_png_mode_becomes_grey_or_rgb(folder, colour, mode, shape):
    picture = Image.fromarray(colour).convert(mode)
    picture.save(folder / "a.png")
    image = load_image(folder / "a.png")
    expected = np.asarray(picture.convert("L" if len(shape) == 2 else "RGB"))
    assert image.shape == shape and (image == expected).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_exif_orientation_is_obeyed(folder, ending):
    gradient = np.repeat(np.linspace(0, 250, 40).astype(np.uint8)[:, None], 20, axis=1)
    note = Image.Exif()
    note[274] = 6  # shown after a quarter turn clockwise
    Image.fromarray(gradient).save(folder / f"a.{ending}", exif=note)
    image = load_image(folder / f"a.{ending}").astype(int)
    assert image.shape == (20, 40)
    assert abs(image - np.rot90(gradient, -1)).max() <= 3


def test_white_is_zero_is_turned_round(folder):
    tifffile = pytest.importorskip("tifffile")
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        values = np.arange(20, dtype=dtype).reshape(4, 5)
        tifffile.imwrite(folder / "a.tif", values, photometric="miniswhite")
        assert (load_image(folder / "a.tif") == top - values).all()


def test_a_telephones_jpeg_with_a_preview_inside_is_one_picture(folder, colour):
    preview = Image.fromarray(colour[::-1].copy())
    Image.fromarray(colour).save(
        folder / "a.jpg", format="MPO", save_all=True, append_images=[preview]
    )
    assert load_image(folder / "a.jpg").shape == colour.shape


def test_cmyk_jpeg_gives_three_channels(folder, colour):
    Image.fromarray(colour).convert("CMYK").save(folder / "a.jpg")
    assert load_image(folder / "a.jpg").shape == (40, 30, 3)


def bad_files(folder, colour):
    noise = Image.fromarray(np.tile(colour, (5, 5, 1)))
    noise.save(
        folder / "animation.gif", save_all=True, append_images=[noise.rotate(90), noise.rotate(180)]
    )
    noise.save(folder / "stack.tif", save_all=True, append_images=[noise])
    for kind in ("jpg", "png", "tif", "bmp", "webp"):
        noise.save(folder / f"whole.{kind}")
        data = (folder / f"whole.{kind}").read_bytes()
        for share in (0.02, 0.5, 0.95):
            (folder / f"cut_{share}.{kind}").write_bytes(data[: int(share * len(data))])
        (folder / f"whole.{kind}").unlink()
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "zeros.jpg").write_bytes(bytes(1000))
    (folder / "a_folder.png").mkdir()
    return sorted(folder.iterdir()) + [folder / "missing.png"]


def test_bad_files_give_one_line_that_names_them(folder, colour, capfd):
    for path in bad_files(folder, colour):
        with pytest.raises(ImageError) as caught:
            load_image(path)
        message = str(caught.value)
        assert (
            message.startswith(f"{path}: ")
            and "\n" not in message
            and ";" in message
            or "(" in message
        ), path.name
    assert "OpenCV" not in capfd.readouterr().err


def test_a_dicom_file_is_sent_to_its_reader():
    from pydicom.data import get_testdata_file

    with pytest.raises(ImageError, match="read_image"):
        load_image(get_testdata_file("CT_small.dcm", download=False))


def test_a_picture_with_impossible_size_is_refused(folder):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ImageError, match="more pixels"):
        load_image(folder / "huge.png")


@few
@given(
    st.sampled_from(["jpg", "png", "tif"]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path_factory, kind, changes):
    path = tmp_path_factory.mktemp("damaged") / f"a.{kind}"
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(path)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = load_image(path)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.ndim in (2, 3)


# --- resizing ---


@pytest.mark.parametrize("dtype", "u1 i1 u2 i2 i4 u4 i8 f2 f4 f8 ?".split())
@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 1), (12, 9, 3), (12, 9, 7)])
@pytest.mark.parametrize("size", [(5, 4), (20, 30), (5, 30), (12, 9)])
def test_resize_keeps_type_and_channels(dtype, shape, size):
    image = np.ones(shape, dtype)
    for labels in (False, True):
        small = resize(image, size, labels=labels)
        assert small.shape == size + shape[2:] and small.dtype == dtype and np.allclose(small, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_resize_equals_opencv(dtype):
    image = (np.random.default_rng(0).random((50, 70, 3)) * 200).astype(dtype)
    assert (
        resize(image, (20, 30)) == cv2.resize(image, (30, 20), interpolation=cv2.INTER_AREA)
    ).all()
    assert (
        resize(image, (80, 90)) == cv2.resize(image, (90, 80), interpolation=cv2.INTER_LINEAR)
    ).all()


@few
@given(images, st.integers(1, 3), st.integers(1, 3))
def test_resize_stays_within_the_images_range_and_shrinking_keeps_the_mean(image, down, across):
    taller = np.repeat(np.repeat(image, down, axis=0), across, axis=1)
    small = resize(taller, image.shape)
    assert np.allclose(small, image, atol=1e-2)  # the mean of equal blocks is the block
    grown = resize(image, (17, 19))
    assert grown.min() >= image.min() - 1e-2 and grown.max() <= image.max() + 1e-2


def test_resize_with_seven_channels_treats_each_alone():
    image = np.random.default_rng(0).random((30, 20, 7)).astype(np.float32)
    each = np.stack([resize(image[..., i], (8, 40)) for i in range(7)], axis=-1)
    assert np.allclose(resize(image, (8, 40)), each)


def test_resize_of_labels_invents_none():
    labels = np.random.default_rng(0).choice([0, 3, 9], (33, 47))
    for size in (7, 60, (5, 100)):
        assert set(np.unique(resize(labels, size, labels=True))) <= {0, 3, 9}
    assert (resize(labels, (66, 94), labels=True)[::2, ::2] == labels).all()


@pytest.mark.parametrize(
    "image, size, said",
    [
        (np.full((4, 4), np.nan), 2, "NaN"),
        (np.full((4, 4), np.inf), 2, "infinite"),
        (np.ones((4, 4)), 0, "size"),
        (np.ones((4, 4)), (3, -1), "size"),
        (np.ones((4, 4)), 2.5, "size"),
        (np.ones((4, 4)), (1, 2, 3), "size"),
        (np.ones(4), 2, "shape"),
        (np.ones((0, 4)), 2, "shape"),
        (np.ones((2, 2, 2, 2)), 2, "shape"),
        (np.ones((4, 4), complex), 2, "real"),
        (np.array([["a"]]), 2, "real"),
    ],
)
def test_resize_refuses(image, size, said):
    with pytest.raises(ImageError, match=said):
        resize(image, size)


def test_results_do_not_share_memory_with_the_image():
    image = np.ones((6, 6), np.float32)
    for result in (
        resize(image, 6),
        pre.crop(image, 0, 0, 3, 3),
        pre.center_crop(image, 6),
        pre.to_uint8(image.astype(np.uint8)),
    ):
        result[:] = 0
    assert (image == 1).all()


def test_block_mean_and_linear_weights():
    image = np.random.default_rng(0).random((12, 18, 2))
    assert np.allclose(
        pre.block_mean(image, 3), cv2.resize(image, (6, 4), interpolation=cv2.INTER_AREA)
    )
    with pytest.raises(ImageError, match="crop first"):
        pre.block_mean(image, 5)
    for old, new in ((1, 5), (5, 1), (4, 9), (9, 4)):
        assert np.allclose(pre.linear_weights(old, new).sum(1), 1)
    assert np.allclose(pre.linear_weights(6, 6), np.eye(6))


# --- cutting and padding ---


@few
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_crop_has_the_size_asked_for_or_is_refused(height, width, data):
    image = np.arange(height * width).reshape(height, width)
    top, left, h, w = (data.draw(st.integers(-2, 22)) for _ in range(4))
    if 0 <= top and 0 <= left and 1 <= h and 1 <= w and top + h <= height and left + w <= width:
        cut = pre.crop(image, top, left, h, w)
        assert (
            cut.shape == (h, w)
            and cut[0, 0] == image[top, left]
            and cut[-1, -1] == image[top + h - 1, left + w - 1]
        )
    else:
        with pytest.raises(ImageError):
            pre.crop(image, top, left, h, w)


@few
@given(images)
def test_padding_then_center_crop_gives_the_image_back(image):
    padded = pre.pad_to_square(image, value=-7)
    assert padded.shape == (max(image.shape),) * 2 and padded.dtype == image.dtype
    assert (pre.center_crop(padded, image.shape) == image).all()


def test_padding_keeps_channels_and_fills_with_the_value():
    padded = pre.pad_to_square(np.zeros((2, 5, 3), np.uint8), value=9)
    assert padded.shape == (5, 5, 3) and (padded[[0, 3, 4]] == 9).all() and (padded[1:3] == 0).all()


# --- intensities ---


@few
@given(images)
def test_normalise_and_standardise_have_the_stated_range_and_moments(image):
    unit = pre.normalise(image)
    standard = pre.standardise(image)
    assert unit.dtype == standard.dtype == np.float32
    if image.min() == image.max():
        assert (unit == 0).all() and (standard == 0).all()
    else:
        assert unit.min() == 0 and unit.max() == 1
        assert abs(standard.mean(dtype=float)) < 1e-3 and abs(standard.std(dtype=float) - 1) < 1e-3


@few
@given(images, st.floats(0.5, 20), st.floats(-50, 50))
def test_both_forgive_gain_and_offset(image, gain, offset):
    if np.ptp(image) > 1:
        changed = gain * image.astype(float) + offset
        assert np.allclose(pre.normalise(changed), pre.normalise(image), atol=1e-3)
        assert np.allclose(pre.standardise(changed), pre.standardise(image), atol=1e-3)


def test_normalise_by_percentiles_ignores_one_bright_pixel():
    image = np.tile(np.linspace(0, 1, 100), (100, 1))
    spoiled = image.copy()
    spoiled[0, 0] = 1e6
    assert abs(pre.normalise(spoiled, (1, 99)) - pre.normalise(image, (1, 99)))[1:].max() < 0.02
    low, high = np.percentile(image, (5, 90))
    assert np.allclose(
        pre.normalise(image, (5, 90)), np.clip((image - low) / (high - low), 0, 1), atol=1e-6
    )


def test_normalise_does_not_overflow_whole_numbers():
    assert (pre.normalise(np.array([[-32768, 32767]], np.int16)) == [[0, 1]]).all()
    assert (pre.normalise(np.array([[False, True]])) == [[0, 1]]).all()


@pytest.mark.parametrize("call", [pre.normalise, pre.standardise, pre.to_uint8])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_values_are_counted(call, value):
    image = np.zeros((3, 3))
    image[1, 1] = value
    with pytest.raises(ImageError, match="1 of 9 values"):
        call(image)


@pytest.mark.parametrize("pair", [(5, 5), (90, 10), (-1, 99), (0, 101)])
def test_normalise_refuses_percentiles(pair):
    with pytest.raises(ImageError, match="percentiles"):
        pre.normalise(np.ones((2, 2)), pair)


def test_to_uint8():
    assert (pre.to_uint8(np.array([[0, 0.5, 1]])) == [[0, 128, 255]]).all()
    assert (pre.to_uint8(np.array([[0, 257, 65535]], np.uint16)) == [[0, 1, 255]]).all()
    assert (pre.to_uint8(np.array([[False, True]])) == [[0, 255]]).all()
    for wrong in (np.array([[0, 1.5]]), np.array([[-0.1, 0]]), np.array([[0, 300]], np.int32)):
        with pytest.raises(ImageError, match="normalise"):
            pre.to_uint8(wrong)


def test_to_channels():
    grey = np.full((4, 5), 100, np.uint8)
    rgb = np.full((4, 5, 3), (255, 0, 0), np.uint8)
    assert pre.to_channels(grey).shape == (4, 5, 1) and pre.to_channels(rgb).shape == (4, 5, 3)
    assert (pre.to_channels(grey, 3) == 100).all() and pre.to_channels(grey, 3).shape == (4, 5, 3)
    assert (pre.to_channels(rgb, 1) == 76).all() and pre.to_channels(rgb, 1).dtype == np.uint8
    assert (pre.to_channels(pre.to_channels(grey, 3), 1)[..., 0] == grey).all()
    with pytest.raises(ImageError, match="channels"):
        pre.to_channels(np.ones((4, 5, 2)), 3)


def test_importing_is_light():
    import subprocess
    import sys

    heavy = ("cv2", "PIL", "skimage", "keras", "matplotlib")
    module = "medbook.images.preprocess"
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
