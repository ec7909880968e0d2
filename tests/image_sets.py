"""Small data sets for the tests of part 1: pictures in folders, archives, phantoms, bars."""

from functools import lru_cache

import cv2
import numpy as np
import pytest
from scipy import ndimage

from medbook.images import from_arrays
from medbook.images.phantoms import study

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch, request):
    """Tests see no data but their own, unless they ask for `shared`; the cache is a new folder."""
    monkeypatch.setenv("MEDBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
    if "shared" not in request.fixturenames:
        monkeypatch.delenv("MEDBOOK_DATA", raising=False)


def picture(path, seed=0, shape=(20, 24), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (
        np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        if value is None
        else np.full(shape, value, np.uint8)
    )
    assert cv2.imwrite(str(path), pixels)
    return pixels


def class_folder(root, count=12, names=("normal", "sick"), **options):
    for label, name in enumerate(names):
        for place in range(count):
            picture(
                root / name / f"P{label}{place // 2:03d}_{place}.png",
                seed=100 * label + place,
                **options,
            )
    return root


def medmnist(
    path,
    sizes=(20, 8, 12),
    shape=(28, 28),
    labels=lambda n: RNG.permutation(np.arange(n) % 2)[:, None].astype(np.uint8),
):
    arrays = {}
    for name, count in zip(("train", "val", "test"), sizes, strict=True):
        arrays |= {
            f"{name}_images": RNG.integers(0, 256, (count, *shape), dtype=np.uint8),
            f"{name}_labels": labels(count),
        }
    np.savez(path, **arrays)
    return arrays


def save(path, **arrays):
    good = {"images": RNG.integers(0, 256, (10, 8, 8), dtype=np.uint8), "labels": np.arange(10) % 2}
    np.savez(path, **{key: value for key, value in (good | arrays).items() if value is not None})


def picture_folder(root, count=60, seed=0):
    rng = np.random.default_rng(seed)
    for place in range(count):
        path = root / ("sick" if place % 2 else "healthy") / f"P{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = ndimage.gaussian_filter(rng.normal(size=(24, 24)), 2) * 600 + 128
        cv2.imwrite(str(path), smooth.clip(0, 255).astype(np.uint8))
    return root


@lru_cache
def chest_phantoms():
    """Chest phantoms of 70 patients, 32 × 32, several images each."""
    made = list(study(70, size=32, prevalence=0.4, seed=5))
    images = np.stack([one.image for one in made]) / np.float32(4095)
    return from_arrays(
        images,
        [one.label for one in made],
        classes=["normal", "nodule"],
        patients=[one.patient.id for one in made],
    )


@lru_cache
def bars():
    """300 images of two kinds that a forest tells apart: a bright bar, upright or level."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    images = rng.uniform(0, 0.4, (300, 20, 20, 1))
    for image, label, place in zip(images, labels, rng.integers(5, 13, 300), strict=True):
        (image.swapaxes(0, 1) if label else image)[place : place + 4, 2:18] += 0.5
    return from_arrays(images.astype("float32"), labels, classes=["level", "upright"])
