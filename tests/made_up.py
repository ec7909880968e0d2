"""Data sets that tests share."""

from dataclasses import replace

import numpy as np

from medbook.images.data_cards import Card
from medbook.images.datasets import Dataset, split


def scans(patients=60, images=3, size=12, seed=0, lesion=1.0, sickness=0.5):
    """Made-up scans: every patient has a pattern of his own, the ill ones a bright spot somewhere
    in each image."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients), images)
    labels = (people < round(sickness * patients)).astype(np.int64)
    pictures = (
        0.5
        + 0.3 * rng.normal(size=(patients, size, size))[people]
        + 0.3 * rng.normal(size=(len(people), size, size))
    )
    rows, columns = np.mgrid[:size, :size]
    for place in np.flatnonzero(labels):
        y, x = rng.uniform(3, size - 3, 2)
        pictures[place] += lesion * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 5)
    names = np.array([f"p{name:03}" for name in people])
    ids = np.array([f"{name}-{place}" for place, name in enumerate(names)])
    return Dataset(
        pictures[..., None].astype("float32"),
        labels,
        ["normal", "lesion"],
        names,
        split(labels, patients=names, fractions=(0.6, 0.2, 0.2), seed=seed),
        ids,
        Card("scans"),
        "binary",
    )


def poisoned(dataset):
    """The same data with a test split that would ruin whoever reads it: labels turned over, pixels
    not a number."""
    labels = dataset.labels.copy()
    images = dataset.images.copy()
    test = dataset.splits == "test"
    labels[test] = 1 - labels[test]
    images[test] = np.nan
    return replace(dataset, labels=labels, images=images)
