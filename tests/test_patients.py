"""Made-up patients: one tissue everywhere, nodules wholly in air-filled lung."""

from dataclasses import replace

import numpy as np
import pytest

from medbook.images import patients, xray


@pytest.mark.parametrize("seed", range(8))
def test_nodules_lie_wholly_in_air_filled_lung_and_apart(seed):
    person = patients.draw_patient(seed, nodules=4)
    plain = replace(person, nodules=())
    directions = np.random.default_rng(0).normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    organs = patients.organs(plain)
    for i, one in enumerate(person.nodules):
        surface = np.array(one.centre) + one.diameter / 2 * directions
        assert (
            xray.contains(organs["left lung"], surface)
            | xray.contains(organs["right lung"], surface)
        ).all()
        assert not any(
            xray.contains(organs[name], surface).any()
            for name in ("heart", "left dome", "right dome", "aorta")
        )
        for other in person.nodules[:i]:
            assert (
                np.linalg.norm(np.subtract(one.centre, other.centre))
                >= (one.diameter + other.diameter) / 2 - 1e-9
            )


def test_every_place_in_the_lungs_has_one_tissue():
    person = patients.draw_patient(5)
    z, y, x = np.meshgrid(
        np.arange(-150, 150, 9), np.arange(-70, 80, 9), np.arange(-150, 150, 9), indexing="ij"
    )
    points = np.stack([z, y, x], axis=-1)
    parts = [patients.organs(person)["body"], *patients._lung_regions(person)]
    inside = xray.contains(parts[0], points)
    mu = sum(one.mu * xray.contains(one, points) for one in parts)[inside]
    assert np.isclose(mu[:, None], [xray.MU["soft tissue"], xray.MU["lung"]]).any(axis=1).all()
