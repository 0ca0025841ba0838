"""What other packages call of the native module."""

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
