"""The bindings of the runs that are not completed, which native/tests/runs_test.cpp tests."""

from __future__ import annotations

import numpy as np
import pytest

from steerx_edge import _native

NONE = np.empty(0, np.uint32)
TEXT = np.array([21, 22, 23, 7, 21, 22, 23], np.int32)


def test_runs_are_hashed_found_and_left_out() -> None:
    hashes = np.empty(1, np.uint32)
    _native.run_hashes(np.array([[21, 22, 23, 5]], np.int32), hashes)
    shares = np.ones(4, np.float32)
    _native.leave_out_runs(TEXT, hashes, 4, np.array([5, 6, 7, 5], np.int32), shares)
    assert shares.tolist() == [0, 1, 0, 0]
    assert _native.ends_in_a_repeat(TEXT, 3)
    assert not _native.ends_in_a_repeat(TEXT, 4)


def test_arrays_that_do_not_fit_are_refused() -> None:
    tokens = TEXT[:2]
    with pytest.raises(ValueError, match="hashes: expected 2"):
        _native.run_hashes(np.zeros((2, 4), np.int32), np.empty(3, np.uint32))
    with pytest.raises(ValueError, match="shares: expected 2"):
        _native.leave_out_runs(TEXT, NONE, 4, tokens, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="one token at least"):
        _native.leave_out_runs(TEXT, NONE, 0, tokens, np.ones(2, np.float32))
