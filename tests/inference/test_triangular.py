import numpy as np
import pytest

from lorafit.inference.triangular import Triangular


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("rows", [0, 1, 64, 65])
def test_products_are_those_of_the_whole_matrix(width: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    matrix = np.tril(rng.normal(size=(width, width))).astype(np.float32)
    vectors = rng.normal(size=(rows, width))
    triangular = Triangular.of(matrix)
    np.testing.assert_array_equal(triangular.whole(), matrix)
    np.testing.assert_allclose(triangular.multiply(vectors), vectors @ matrix.T.astype(float), atol=1e-12)


def test_what_is_above_the_diagonal_is_passed_over_and_takes_no_memory() -> None:
    triangular = Triangular.of(np.ones((768, 768)))
    np.testing.assert_array_equal(triangular.whole(), np.tril(np.ones((768, 768))))
    assert sum(strip.nbytes for strip in triangular.strips) < 0.55 * 4 * 768**2
    assert all(strip.base is None for strip in triangular.strips)
