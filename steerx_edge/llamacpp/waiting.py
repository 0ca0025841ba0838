"""Configure how llama.cpp's threads wait for each other, before it is loaded."""

from __future__ import annotations

import os

_POLICY = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}


def wait_briefly() -> None:
    """Let a thread that waits spin for some microseconds, and then sleep.

    Threads that spin for long, as they do unless told otherwise, are several times slower where
    another program wants the processor, too. Threads that sleep at once, which is what the policy
    alone means to GCC's OpenMP, generate at a third of the speed where none does. What the user has
    set is left as it is.
    """
    if not any(name in os.environ for name in _POLICY):
        os.environ.update(_POLICY)
