"""`SliceViewer` in a real JupyterLab and in Voila, in a real browser."""

import re

import numpy as np
import pytest

from medbook.inspection.slices import grey_levels, overlay_masks, plane_of
from tests.browser import FRONTS, canvas_pixels, shown, wait_for_change

VOLUME = """import numpy as np
from medbook.inspection.slices import SliceViewer
volume = np.random.default_rng(0).integers(-1000, 1000, (5, 8, 12))
masks = {"left": np.broadcast_to(np.arange(12) < 6, volume.shape),
         "top": np.broadcast_to(np.arange(8)[:, None] < 2, volume.shape)}
"""
SLICES = VOLUME + "SliceViewer(volume, spacing=(3, 2, 1), units='HU', title='blocks')"
MASKED = (
    VOLUME
    + "SliceViewer(volume.astype(float) / 7, masks=masks, windows={'a': (0, 200), 'b': (50, 20)})"
)


@pytest.fixture(scope="module", params=FRONTS)
def server(request, servers):
    return servers(request.param)


@pytest.fixture(scope="module")
def book(browser, server):
    """One notebook with the viewers of all tests: (page, watch)."""
    with shown(browser, server, [SLICES, MASKED]) as (page, watch):
        page.locator("canvas.medbook-canvas").nth(1).wait_for()
        page.wait_for_function(
            "[...document.querySelectorAll('canvas.medbook-canvas')].every(one => one.ariaLabel)"
        )
        yield page, watch
        watch.check()


def fresh(book, number=0):
    """The page, its watch and one of its canvases, as it was at first."""
    page, watch = book
    viewer = page.locator(".medbook-slices").nth(number)
    canvas = viewer.locator("canvas.medbook-canvas")
    canvas.scroll_into_view_if_needed()
    canvas.dblclick()
    for key in ("a", "Home", "ArrowDown", "ArrowDown"):
        canvas.press(key)
    page.wait_for_timeout(500)
    return page, watch, canvas


def the_volume():
    """The volume that the notebook makes."""
    return np.random.default_rng(0).integers(-1000, 1000, (5, 8, 12))


def voxels(canvas, rows, columns, tall, wide):
    """What a canvas shows at the middle of every voxel of a plane of tall × wide mm."""
    pixels = canvas_pixels(canvas)
    scale = min(pixels.shape[0] / tall, pixels.shape[1] / wide)
    top, left = (pixels.shape[0] - scale * tall) / 2, (pixels.shape[1] - scale * wide) / 2
    down = (top + scale * tall * (np.arange(rows) + 0.5) / rows).astype(int)
    across = (left + scale * wide * (np.arange(columns) + 0.5) / columns).astype(int)
    return pixels[np.ix_(down, across)][..., :3]


def agree(canvas, expected, tall, wide):
    """The canvas shows exactly `expected` levels of grey, or colours."""
    seen = voxels(canvas, *expected.shape[:2], tall, wide)
    colours = np.repeat(expected[..., np.newaxis], 3, axis=-1) if expected.ndim == 2 else expected
    assert np.abs(seen.astype(int) - colours).max() == 0


@pytest.mark.timeout(300)
def test_a_volume_is_turned_windowed_and_read(book):
    volume = the_volume()
    page, watch, canvas = fresh(book)
    assert (
        canvas.get_attribute("aria-label")
        == "blocks, axial slice 3 of 5, window soft tissue, centre 40 HU, width 400 HU"
    )
    agree(canvas, grey_levels(volume[2], 40, 400), 16, 12)
    before = canvas_pixels(canvas)
    canvas.hover()
    page.mouse.wheel(0, 120)
    before = wait_for_change(page, canvas, before)
    assert "axial slice 4 of 5" in canvas.get_attribute("aria-label")
    agree(canvas, grey_levels(volume[3], 40, 400), 16, 12)
    page.get_by_role("button", name="lung", exact=True).click()
    before = wait_for_change(page, canvas, before)
    agree(canvas, grey_levels(volume[3], -600, 1500), 16, 12)
    canvas.press("3")
    before = wait_for_change(page, canvas, before)
    assert "window bone" in canvas.get_attribute("aria-label")
    canvas.press("c")
    before = wait_for_change(page, canvas, before)
    assert "coronal slice 5 of 8" in canvas.get_attribute("aria-label")
    agree(canvas, grey_levels(plane_of(volume, 1, 4), 400, 1800), 15, 12)
    canvas.press("PageUp")
    before = wait_for_change(page, canvas, before)
    agree(canvas, grey_levels(plane_of(volume, 1, 0), 400, 1800), 15, 12)
    canvas.press("s")
    before = wait_for_change(page, canvas, before)
    agree(canvas, grey_levels(plane_of(volume, 2, 6), 400, 1800), 15, 16)
    canvas.press("a")
    wait_for_change(page, canvas, before)
    watch.check()


@pytest.mark.timeout(300)
def test_dragging_changes_the_window_and_reset_brings_it_back(book):
    page, watch, canvas = fresh(book)
    page.wait_for_timeout(500)
    first = canvas_pixels(canvas)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 190, steps=4)
    page.mouse.up()
    dragged = wait_for_change(page, canvas, first)
    centre, width = map(
        float,
        re.search(r"centre (\S+) HU, width (\S+) HU", canvas.get_attribute("aria-label")).groups(),
    )
    assert width > 400 and centre > 40
    asked = watch.asked
    canvas.press("+")
    larger = wait_for_change(page, canvas, dragged)
    canvas.dblclick()
    wait_for_change(page, canvas, larger)
    page.wait_for_timeout(600)
    assert (canvas_pixels(canvas) == first).all()
    assert watch.asked <= asked + 3
    watch.check()


@pytest.mark.timeout(300)
def test_the_value_under_the_pointer_is_the_volumes(book):
    volume = the_volume()
    page, watch, canvas = fresh(book)
    page.wait_for_timeout(300)
    box = canvas.bounding_box()
    scale = min(box["height"] / 16, box["width"] / 12)
    left, top = box["width"] / 2 - 6 * scale, box["height"] / 2 - 8 * scale
    for row, column in ((0, 0), (3, 7), (7, 11)):
        canvas.hover(
            position={"x": left + scale * (column + 0.5), "y": top + scale * 2 * (row + 0.5)}
        )
        told = page.locator(".medbook-readout").first.inner_text().replace("−", "-")
        place = f"slice 2, row {row}, column {column} · 6.0, {2 * row:.1f}, {column:.1f} mm"
        assert told == f"{volume[2, row, column]} HU · {place}"
    watch.check()


@pytest.mark.timeout(300)
def test_masks_are_laid_over(book):
    page, watch, canvas = fresh(book, 1)
    page.wait_for_timeout(300)
    volume = the_volume()[2] / 7
    bits = (np.arange(12) < 6).astype(np.uint8) + 2 * (np.arange(8)[:, None] < 2).astype(np.uint8)
    seen = voxels(canvas, 8, 12, 8, 12).astype(int)
    assert np.abs(seen - overlay_masks(grey_levels(volume, 0, 200), bits, 0.4)).max() <= 1
    before = canvas_pixels(canvas)
    page.get_by_role("checkbox", name="top").uncheck()
    before = wait_for_change(page, canvas, before)
    seen = voxels(canvas, 8, 12, 8, 12).astype(int)
    assert np.abs(seen - overlay_masks(grey_levels(volume, 0, 200), bits & 1, 0.4)).max() <= 1
    canvas.press("m")
    wait_for_change(page, canvas, before)
    watch.check()


@pytest.mark.timeout(300)
def test_a_large_volume_arrives_in_parts(browser, server):
    made = "np.random.default_rng(0).integers(0, 1000, (12, 500, 500))"
    cells = [
        f"import numpy as np\nfrom medbook.inspection.slices import SliceViewer\nvolume = {made}",
        "SliceViewer(volume, masks=volume > 990, windows={'all': (500, 1000)})",
    ]
    volume = np.random.default_rng(0).integers(0, 1000, (12, 500, 500))
    with shown(browser, server, cells) as (page, watch):
        canvas = page.locator("canvas.medbook-canvas")
        page.wait_for_function(
            "document.querySelector('.medbook-readout')?.textContent.startsWith('point')",
            timeout=60_000,
        )
        box = canvas.bounding_box()
        scale = min(box["height"], box["width"]) / 500
        for key, plane in (("Home", 0), ("End", 11)):
            canvas.press(key)
            for row, column in ((3, 7), (250, 100), (490, 499)):
                canvas.hover(
                    position={
                        "x": box["width"] / 2 + scale * (column - 249.5),
                        "y": box["height"] / 2 + scale * (row - 249.5),
                    }
                )
                told = re.match(
                    r"(\d+) · slice (\d+), row (\d+), column (\d+)(.*)",
                    page.locator(".medbook-readout").inner_text(),
                )
                value, *place = map(int, told.groups()[:4])
                assert (
                    place[0] == plane and abs(place[1] - row) <= 1 and value == volume[tuple(place)]
                )
                assert (told[5] == " · mask") == (value > 990)
        watch.check()
