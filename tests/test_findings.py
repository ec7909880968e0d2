"""Findings: what a single check says, on published files."""

import numpy as np
import pandas as pd

from medbook.images import findings, load
from medbook.images.image_files import pixel_hashes


def test_pneumoniamnist(shared):
    dataset = load("pneumoniamnist")
    dataset = dataset.take(np.flatnonzero(dataset.splits != "test"))
    facts = pd.DataFrame({"hash": pixel_hashes(dataset.images)})
    found = pd.DataFrame(findings.exact_copies(dataset, facts.hash))
    leaks = found[found.problem == "leak by copy"]
    assert len(leaks) == 8 and all(set(splits) == {"train", "valid"} for splits in leaks.splits)
    assert (found.certainty == "certain").all() and "label conflict" not in set(found.problem)
