"""What outlives what, and what an interrupt, a fork and the end of the interpreter leave behind.

What might crash runs in an interpreter of its own, which must end as expected and say nothing.
"""

from __future__ import annotations

import copy
import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import context as context_module
from steerx_edge.llamacpp import log
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import ScoreRequest, ScoreResult
from tests.conftest import open_tiny
from tests.llamacpp.conftest import assert_same, changed_batches
from tests.support.steered_llama import complete, reset

REQUEST = ScoreRequest([1, 300], [301, 302, 303], layers=(0, 3), entropy=True, top_k=2)
VECTOR = np.ones((1, 64), np.float32)
ROOT = Path(__file__).parents[2]
PACKAGE = str(Path(context_module.__file__).parent)


# What outlives what


def test_results_outlive_engine_and_model(tiny_f32: TinyModel) -> None:
    llama = open_tiny(tiny_f32)
    engine = Engine(llama)
    result = engine.run(REQUEST)
    kept = copy.deepcopy(result)
    llama.close()
    del engine, llama
    gc.collect()
    assert_same(result, kept)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["close engine", "close llama", "drop engine"]))
)
def test_engine_and_model_may_end_in_any_order(
    monkeypatch: pytest.MonkeyPatch, tiny_f32: TinyModel, order: tuple[str, ...]
) -> None:
    """Each context is freed once, and before the weights, on which it would else work on."""
    freed = record_frees(monkeypatch)
    alive: dict[str, Any] = {"llama": open_tiny(tiny_f32)}
    alive["engine"] = Engine(alive["llama"])
    alive["engine"].run(REQUEST)
    for verb, name in [step.split() for step in order] + [["drop", "llama"]]:
        if verb == "drop":
            del alive[name]
        elif name in alive:
            alive[name].close()
        gc.collect()
    assert freed == FREED_IN_ORDER


def test_in_a_cycle_too_the_analysis_is_freed_before_its_model(
    monkeypatch: pytest.MonkeyPatch, tiny_f32: TinyModel
) -> None:
    freed = record_frees(monkeypatch)
    llama = open_tiny(tiny_f32)
    engine = Engine(llama)
    engine.run(REQUEST)
    application: dict[str, Any] = {"llama": llama, "engine": engine}
    application["itself"] = application
    del llama, engine, application
    gc.collect()
    assert freed == FREED_IN_ORDER


FREED_IN_ORDER = ["llama_free", "llama_free", "llama_model_free"]


def record_frees(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    gc.collect()
    freed: list[str] = []

    def record(module: Any, function: str) -> None:
        free = getattr(module, function)

        def recording(address: Any) -> None:
            if "llama_model_free" not in freed:  # else it would be undefined behaviour
                free(address)
            freed.append(function)

        monkeypatch.setattr(module, function, recording)

    record(llama_cpp, "llama_free")  # what the analysis calls
    record(llama_cpp.llama_cpp, "llama_free")  # what llama-cpp-python calls
    record(llama_cpp.llama_cpp, "llama_model_free")
    return freed


def test_a_dropped_engine_frees_its_analysis_and_leaves_the_llama_usable(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Llama
) -> None:
    freed = record_frees(monkeypatch)
    written = complete(tiny_llama, [1, 300], 5)
    engine = Engine(tiny_llama)
    engine.run(REQUEST)
    alive = weakref.ref(engine.analysis)
    del engine
    gc.collect()
    assert alive() is None
    assert freed == ["llama_free"]
    reset(tiny_llama)
    assert complete(tiny_llama, [1, 300], 5) == written


def test_a_closed_engine_makes_a_new_analysis_when_needed(tiny_engine: Engine) -> None:
    before, old = tiny_engine.run(REQUEST), tiny_engine.analysis
    tiny_engine.close()
    tiny_engine.close()
    with pytest.raises(ModelError, match="closed"):
        old.run(REQUEST)
    assert_same(tiny_engine.run(REQUEST), before)
    assert tiny_engine.analysis is not old


@pytest.mark.parametrize("was_used", [True, False])
def test_an_analysis_of_a_closed_llama_is_refused(tiny_engine: Engine, was_used: bool) -> None:
    uses: list[Callable[[ScoreRequest], object]] = [tiny_engine.run]
    uses.append(lambda _: AnalysisContext(tiny_engine.llama, n_ctx=64))
    if was_used:
        uses.append(tiny_engine.analysis.run)
    tiny_engine.llama.close()
    for use in uses:
        with pytest.raises(ModelError, match="closed"):
            use(REQUEST)
    tiny_engine.close()


def test_weights_freed_behind_the_back_of_the_model_end_the_engine(tiny_llama: Llama) -> None:
    """As a garbage collector may do, that takes the weights first."""
    engine = Engine(tiny_llama)
    engine.run(REQUEST)
    weights: Any = tiny_llama._model  # noqa: SLF001  # nothing else closes them alone
    weights.close()
    with pytest.raises(ModelError, match="closed"):
        engine.analysis.run(REQUEST)


def test_an_engine_dropped_during_a_pass_lives_until_its_end(tiny_engine: Engine) -> None:
    engine = Engine(tiny_engine.llama)
    expected = engine.run_many([REQUEST] * 100)
    results: list[ScoreResult] = []
    thread = threading.Thread(
        target=lambda run: results.extend(run([REQUEST] * 100)), args=(engine.run_many,)
    )
    thread.start()
    del engine
    gc.collect()
    thread.join()
    for result, wanted in zip(results, expected, strict=True):
        assert_same(result, wanted)


def test_threads_that_need_the_analysis_context_first_make_one(tiny_engine: Engine) -> None:
    made: list[AnalysisContext] = []
    threads = [threading.Thread(target=lambda: made.append(tiny_engine.analysis)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({id(each) for each in made}) == 1


# Errors and interrupts


def test_an_error_in_the_callback_leaves_the_engine_as_new(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    engine, fresh = Engine(open_llama(tiny_f32)), Engine(open_llama(tiny_f32)).run(REQUEST)

    def change_token(batch: Any) -> None:
        batch.token[0] += 1

    for changes in ((), (Add((1,), VECTOR),)):
        request = replace(REQUEST, interventions=changes)
        engine.run(request)
        with changed_batches(change_token), pytest.raises(ModelError, match="in another order"):
            engine.run(request)
        assert_same(engine.run(REQUEST), fresh)


def interrupt_after(n: int) -> Callable[..., Any]:
    """A trace function: KeyboardInterrupt before line number n (from 0) of a pass.

    Not in the log callback, which the command line sets for the whole process: ctypes drops what
    is raised there.
    """
    lines = itertools.count()

    def trace(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG001
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE) or file == log.__file__:
            return None
        if event == "line" and next(lines) == n:
            raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("in_graph", [True, False])
def test_a_pass_interrupted_anywhere_leaves_nothing_to_the_next(
    tiny_engine: Engine, in_graph: bool
) -> None:
    expected = tiny_engine.run(REQUEST)
    tiny_engine.analysis.in_graph = in_graph
    steered = ScoreRequest([1, 300], [301], layers=(2,), interventions=(Add((1,), VECTOR),))
    tracer = sys.gettrace()
    for n in itertools.count():
        try:
            sys.settrace(interrupt_after(n))
            tiny_engine.analysis.run(steered)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        assert_same(tiny_engine.run(REQUEST), expected)
    assert n > 100


# Generating


def test_threads_that_generate_wait_for_each_other(tiny_engine: Engine) -> None:
    prompts = [[1, 300 + i] for i in range(4)]
    options = {"max_tokens": 40, "temperature": 0}
    expected = [tiny_engine.generate(prompt, **options) for prompt in prompts]
    texts: dict[int, str] = {}

    def generate(i: int) -> None:
        texts[i] = tiny_engine.generate(prompts[i % 4], **options)

    threads = [threading.Thread(target=generate, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: expected[i % 4] for i in range(16)}


def test_a_stream_is_refused_where_another_was_begun(tiny_engine: Engine) -> None:
    options = {"max_tokens": 20, "temperature": 0}
    expected = tiny_engine.generate([1, 300], **options)
    first = tiny_engine.stream([1, 301], **options)
    next(first)
    second = tiny_engine.stream([1, 300], **options)
    text = next(second)
    with pytest.raises(ModelError, match="Another text was started"):
        next(first)
    assert text + "".join(second) == expected


# Processes

PRELUDE = """
import atexit
at_end = []  # called at the end of the interpreter, when llama.cpp may not work any more
atexit.register(lambda: [function() for function in at_end])

import gc, multiprocessing, os, sys, threading, time
import numpy as np
from llama_cpp import Llama
from steerx_edge import steer
from steerx_edge.llamacpp.requests import ScoreRequest
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.errors import ModelError

REQUEST = ScoreRequest([1, 300], list(range(300, 440)), layers=(0, 3), entropy=True, top_k=400)
MODEL, N_THREADS = sys.argv[1], int(sys.argv[2])

def make():
    return Engine(MODEL, n_ctx=512, n_threads=N_THREADS)

def score(_=None):
    return make().run(REQUEST).scored.tolist()

def status(child):
    '''How a child ended; one that hangs is killed.'''
    for _ in range(300):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"

def in_child(function):
    child = os.fork()
    if child == 0:
        function()
        sys.exit(0)
    return status(child)
"""


def run_script(
    folder: Path, model: TinyModel, script: str, *, n_threads: int = 1
) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(PRELUDE + script)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "GGML_NO_BACKTRACE": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    command = [sys.executable, str(file), str(model.path), str(n_threads)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def assert_quiet(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    assert (done.returncode, done.stderr, done.stdout) == (code, "", "")


ENDS = {
    "an engine in a global": ("engine = make(); engine.run(REQUEST)", 0),
    "a reference cycle": ("engine = make(); engine.run(REQUEST); engine.llama.engine = engine", 0),
    "the analysis context alone": ("context = make().analysis", 0),
    "the weights first": ("engine = make(); engine.run(REQUEST); engine.llama._model.close()", 0),
    "a half consumed stream": (
        "engine = make(); stream = engine.stream([1, 300]); next(stream); engine.run(REQUEST)",
        0,
    ),
    "sys.exit": ("engine = make(); engine.run(REQUEST); sys.exit(3)", 3),
    "sys.exit while steered": (
        """
from tests.support.steered_llama import a_profile
engine = make()
with steer(engine.llama, a_profile(engine.llama)):
    for piece in engine.stream([1, 300]):
        sys.exit(3)
""",
        3,
    ),
    "a thread that goes on": (
        """
engine = make()
engine.analysis
threading.Thread(target=engine.run_many, args=([REQUEST] * 50,)).start()
""",
        0,
    ),
    "many passes to come": (
        """
import llama_cpp
decode, calls = llama_cpp.llama_decode, []
def counted(*args):
    calls.append(args)
    return decode(*args)
engine = make()
engine.analysis
llama_cpp.llama_decode = counted
threading.Thread(target=engine.run_many, args=([REQUEST] * 300,), daemon=True).start()
while not calls:
    time.sleep(0.001)
at_end.append(lambda: len(calls) < 80 or print(len(calls), "of 100 calls"))
""",
        0,
    ),
    "an atexit function that waits for a thread": (
        """
def work():
    while True:
        engine.run(REQUEST)
engine = make()
engine.analysis
thread = threading.Thread(target=work, daemon=True)
thread.start()
at_end.append(thread.join)
""",
        0,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_interpreter_ends_quietly_with(name: str, tmp_path: Path, tiny_chat: TinyModel) -> None:
    script, code = ENDS[name]
    assert_quiet(run_script(tmp_path, tiny_chat, script), code)


@pytest.mark.parametrize(
    ("work", "after"),
    [("engine.run(REQUEST)", 0.02), ("engine.generate([1, 300])", 0.1), ("make().run(REQUEST)", 0)],
)
def test_the_interpreter_ends_quietly_under_a_daemon_thread(
    tmp_path: Path, tiny_f32: TinyModel, work: str, after: float
) -> None:
    script = f"""
engine = make()
engine.analysis
def work():
    while True:
        {work}
threading.Thread(target=work, daemon=True).start()
time.sleep({after})
"""
    assert_quiet(run_script(tmp_path, tiny_f32, script))


@pytest.mark.parametrize("after", [0.1, 0.12])
def test_the_interpreter_ends_quietly_while_a_daemon_thread_frees_a_model(
    tmp_path: Path, tiny_f32: TinyModel, after: float
) -> None:
    """llama.cpp's destructors write to the log, which is a Python function."""
    script = f"""
import ctypes, llama_cpp
@llama_cpp.llama_log_callback
def log(level, text, data):
    time.sleep(0.05 * text.startswith(b"~llama_context"))
llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
def work():
    while True:
        make()
threading.Thread(target=work, daemon=True).start()
time.sleep({after})
"""
    assert_quiet(run_script(tmp_path, tiny_f32, script))


FORKS = {
    "leaves it alone": "assert in_child(lambda: None) == 0",
    "closes the parent's engine": """
def child():
    engine.close()
    engine.llama.close()
assert in_child(child) == 0
""",
    "drops the parent's engine": """
def child():
    global engine
    del engine
    gc.collect()
assert in_child(child) == 0
""",
    "makes its own": """
def child():
    assert score() == expected
assert in_child(child) == 0
""",
    "makes its own, forked from another thread": """
def child():
    assert score() == expected
statuses = []
thread = threading.Thread(target=lambda: statuses.append(in_child(child)))
thread.start()
thread.join()
assert statuses == [0]
""",
    "uses the parent's engine": """
def child():
    for use in (lambda: engine.run(REQUEST), lambda: engine.generate([1, 300]),
                lambda: context.run(REQUEST)):
        try:
            use()
        except ModelError as error:
            assert "forked" in str(error)
        else:
            raise AssertionError
context = engine.analysis
assert in_child(child) == 0
""",
    "begins in mid-pass of another thread": """
thread = threading.Thread(target=engine.run_many, args=([REQUEST] * 100,))
thread.start()
def child():
    global engine
    try:
        engine.run(REQUEST)
    except ModelError:
        pass
    engine.llama.close()
    del engine
    assert score() == expected
assert [in_child(child) for _ in range(3)] == [0, 0, 0]
assert thread.is_alive()
thread.join()
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("name", "n_threads"),
    [*((name, 2) for name in FORKS), ("makes its own", 1), ("leaves it alone", 1)],
)
def test_a_forked_child_that(
    name: str, tmp_path: Path, tiny_f32: TinyModel, n_threads: int
) -> None:
    if "mid-pass" in name and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a lock of AddressSanitizer's allocator may be held by the other thread")
    script = f"""
engine = make()
expected = engine.run(REQUEST).scored.tolist()
{FORKS[name]}
assert engine.run(REQUEST).scored.tolist() == expected
"""
    assert_quiet(run_script(tmp_path, tiny_f32, script, n_threads=n_threads))


@pytest.mark.parametrize(("method", "n_threads"), [("fork", 1), ("fork", 2), ("spawn", 2)])
def test_worker_processes_score_with_an_engine_each(
    tmp_path: Path, tiny_f32: TinyModel, method: str, n_threads: int
) -> None:
    script = f"""
if __name__ == "__main__":
    engine = make()
    expected = engine.run(REQUEST).scored.tolist()
    with multiprocessing.get_context("{method}").Pool(2) as workers:
        assert workers.map(score, range(4)) == [expected] * 4
    assert engine.run(REQUEST).scored.tolist() == expected
"""
    assert_quiet(run_script(tmp_path, tiny_f32, script, n_threads=n_threads))
