"""The functions of the native module that other packages use."""

from steerx_edge._native import (
    ends_in_a_repeat,
    keys_of,
    leave_out_runs,
    mix,
    nearest_keys,
    run_hashes,
    weigh,
)

__all__ = [
    "ends_in_a_repeat",
    "keys_of",
    "leave_out_runs",
    "mix",
    "nearest_keys",
    "run_hashes",
    "weigh",
]
