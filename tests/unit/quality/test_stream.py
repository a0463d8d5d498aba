"""Adaptive windowing finds what river finds, and nothing where nothing changes."""

import numpy as np
from river.drift import ADWIN

from router.quality.stream import Adwin


def changes(values, delta=0.002):
    ours = Adwin(delta)
    return [at for at, value in enumerate(values) if ours.add(value)], ours


def test_a_change_is_found_where_river_finds_it():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.random(1000) < 0.2, rng.random(1000) < 0.5]).astype(float)
    theirs, found = ADWIN(delta=0.002), []
    for at, value in enumerate(values):
        theirs.update(value)
        if theirs.drift_detected:
            found.append(at)
    ours, window = changes(values)
    assert found
    assert abs(ours[0] - found[0]) <= 64
    assert abs(window.mean - theirs.estimation) < 0.05


def test_the_window_is_the_sum_of_what_it_holds():
    rng = np.random.default_rng(2)
    values = rng.random(5000)
    found, window = changes(values)
    assert found == []
    assert window.width == 5000
    assert abs(window.total - values.sum()) < 1e-6


def test_steady_streams_are_hardly_ever_cut():
    rng, cuts = np.random.default_rng(3), 0
    for _ in range(20):
        cuts += bool(changes(rng.random(1500))[0])
    assert cuts <= 1
