"""Passes leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add, Clamp
from steerx_edge.llamacpp.requests import ScoreRequest

PASSES = 10_000
MOST_GROWTH = 2 << 20  # bytes; a leak of one residual row a pass would be 2.5 MB


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="freed memory is kept")
def test_memory_is_flat_over_ten_thousand_passes(tiny_engine: Engine) -> None:
    vectors = np.ones((2, tiny_engine.analysis.n_embd), dtype=np.float32)
    jobs = [
        ScoreRequest([1, 300], [301, 302], layers=(0, 3), entropy=True, top_k=2),
        ScoreRequest([1, 300], [301], score=False, layers=(1,)),
        ScoreRequest([1], [301, 302], interventions=(Clamp(Add((0, 2), vectors), 0.1),)),
        ScoreRequest([1, 303], [301, 302], layers=(2,), interventions=(Add((1, 2), vectors),)),
    ]

    def run(passes: int) -> None:
        for _ in range(passes // len(jobs)):
            tiny_engine.run_many(jobs)

    run(PASSES // 10)
    gc.collect()
    before = resident_bytes()
    run(PASSES)
    gc.collect()
    assert resident_bytes() - before < MOST_GROWTH
