import pytest

from lorafit.errors import EnvironmentUnfitError
from lorafit.training.launch import _find_interface


def test_machines_that_meet_where_no_other_one_comes_are_refused() -> None:
    assert _find_interface("127.0.0.1", 29400)
    with pytest.raises(EnvironmentUnfitError, match=r"127\.0\.1\.1 is 127\.0\.0\.1, which no other one reaches"):
        _find_interface("127.0.1.1", 29400)  # as the name of a Debian machine stands for
