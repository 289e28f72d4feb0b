# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from scipy.stats import ortho_group, pearsonr

from zoomdiff_diffusers.evaluation import rv_coefficient, rv_matrix
from zoomdiff_diffusers.hierarchy import Hierarchy


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def levels(rng):
    finest = rng.gamma(0.5, size=(2, 1, 72, 16, 24))
    return dict(zip(Hierarchy().names, Hierarchy().pyramid(finest)))


def equation_1(a, b):
    """The paper's Eq. 1, letter by letter."""
    squares = [np.trace(np.linalg.matrix_power(matrix @ matrix.T, 2)) for matrix in (a, b)]
    return np.trace(a @ a.T @ b @ b.T) / np.sqrt(np.prod(squares))


@pytest.mark.parametrize(("rows", "columns"), [(7, (2, 5)), (5, (30, 41)), (9, (1, 60))])
def test_it_is_equation_1_for_tall_and_wide_matrices(rng, rows, columns):
    a, b = rng.gamma(1.0, size=(rows, columns[0])), rng.gamma(1.0, size=(rows, columns[1]))
    assert rv_coefficient(a, b, center=False) == pytest.approx(equation_1(a, b))
    assert rv_coefficient(a, b) == pytest.approx(equation_1(a - a.mean(axis=0), b - b.mean(axis=0)))


def test_of_two_columns_it_is_the_squared_correlation(rng):
    a, b = rng.normal(size=(2, 50))
    assert rv_coefficient(a[:, None], b[:, None] + 0.5 * a[:, None]) == pytest.approx(
        pearsonr(a, b + 0.5 * a).statistic ** 2
    )


def test_rotation_scale_and_offset_do_not_matter(rng):
    a = rng.normal(size=(20, 4))
    turned = 1e8 * a @ ortho_group.rvs(4, random_state=1) + np.arange(4)
    assert rv_coefficient(a, turned) == pytest.approx(1.0)
    assert rv_coefficient(a, 1e-9 * a[:, ::-1]) == pytest.approx(1.0)


def test_uncorrelated_matrices_have_none_and_constant_ones_are_undefined():
    hours = np.arange(24) * 2 * np.pi / 24
    assert rv_coefficient(np.sin(hours)[:, None], np.stack([np.cos(hours), np.sin(2 * hours)], axis=1)) < 1e-20
    assert np.isnan(rv_coefficient(np.sin(hours)[:, None], np.full((24, 3), 0.1)))


def test_all_pairs_of_levels_at_the_time_step_of_the_coarser_one(levels):
    found = rv_matrix(levels, Hierarchy())
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1.0)
    fine, coarse = levels["grid_50m"][:, 0], levels["cell"][:, 0]
    expected = [
        rv_coefficient(fine[sample].reshape(18, 4, -1).mean(axis=1), coarse[sample].reshape(18, -1))
        for sample in range(2)
    ]
    assert found[1, 3] == pytest.approx(np.mean(expected))
    assert 0 < found[1, 3] < 1


def test_one_kind_of_place_is_compared_by_itself(levels):
    places = np.zeros((16, 24), dtype=bool)
    places[:8, 8:] = True
    places[8:, :3] = True  # less than half of a base station's cells, one of two columns of cells
    found = rv_matrix(levels, Hierarchy(), places)
    bs = levels["bs"][:, 0][:, :, 0, 1:]
    share = places.reshape(4, 4, 6, 4).mean(axis=(1, 3)) >= 0.5
    cells = levels["cell"][:, 0][:, :, share].reshape(2, 3, 6, -1).mean(axis=2)
    assert found[0, 1] == pytest.approx(np.mean([rv_coefficient(bs[sample], cells[sample]) for sample in range(2)]))
    assert np.isnan(rv_matrix(levels, Hierarchy(), np.zeros((16, 24), dtype=bool))).all()


def test_what_does_not_fit_is_refused(levels):
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        rv_coefficient(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"`places` must be \(16, 24\)"):
        rv_matrix(levels, Hierarchy(), np.ones((16, 23), dtype=bool))
    with pytest.raises(ValueError, match="same samples and time"):
        rv_matrix({**levels, "cell": levels["cell"][..., :6, :, :]}, Hierarchy())
