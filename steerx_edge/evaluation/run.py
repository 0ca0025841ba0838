"""All users of an evaluation, on one process or several, resumed where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steerx_edge.errors import SteerxError
from steerx_edge.evaluation.arms import ArmsOf
from steerx_edge.evaluation.evaluator import BASELINES, Evaluator, Row, Unit
from steerx_edge.evaluation.figures import Evaluation
from steerx_edge.evaluation.sample import Plan, Sample
from steerx_edge.evaluation.text_metrics import check_installed
from steerx_edge.learning.ablation import Progress
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.compat import installed_version
from steerx_edge.llamacpp.control_vector import check_layers
from steerx_edge.version import __version__

if TYPE_CHECKING:
    from steerx_edge.llamacpp.engine import Engine
    from steerx_edge.model_id import ModelId

METHODS: Mapping[str, Settings] = {"steerx": Settings()}
ROWS_FILE = "rows.jsonl"
SUMMARY_FILE = "summary.jsonl"
REPORT_FILE = "report.html"
PROFILES = "profiles"

_T = TypeVar("_T")


def evaluate(
    open_engine: Callable[[], Engine],
    sample: Sample,
    plan: Plan,
    folder: Path,
    *,
    methods: Mapping[str, Settings] = METHODS,
    processes: int = 1,
    progress: Progress = lambda _what, _done, _of: None,
) -> Evaluation:
    """Measure every user under every arm; what `folder` holds already is not measured again.

    Args:
        open_engine: gives an engine; with several processes it must pickle.
        sample: the users.
        plan: what is measured.
        folder: holds the figures, and the profiles that were learned. No texts.
        methods: settings of `learn` by name; `max_items` and, in a sweep, `layers` are the plan's.
        processes: how many processes measure units side by side, each with an engine of its own.
        progress: called with each step.

    Raises:
        SteerxError: the folder is of another evaluation, or a profile cannot be learned.
    """
    if plan.generate:
        check_installed()
    engine = open_engine()
    for layer in plan.layers:
        check_layers((layer,), engine.analysis.n_layer)
    header = _header(engine.model_id, sample, plan, methods)
    store = Store(folder / ROWS_FILE, header)
    profiles = folder / PROFILES
    with _saving(profiles):
        profiles.mkdir(exist_ok=True)
    units = [(user, method) for user in sample.reported for method in (BASELINES, *methods)]
    missing = [unit for unit in units if unit not in store.rows]
    own = [unit for unit in missing if unit[1] != BASELINES]
    what = (sample, plan, methods, profiles)
    with _workers(engine, open_engine, what, min(processes, len(missing))) as run:
        for done, _ in enumerate(run(Evaluator.learn_own, own), start=1):
            progress("own profiles", done, len(own))
        for done, row in enumerate(run(Evaluator.measure, missing), start=1):
            store.add(row)
            progress("measuring", done, len(missing))
    evaluation = Evaluation(header, [store.rows[unit] for unit in units])
    lines = (json.dumps(asdict(line), ensure_ascii=False) for line in evaluation.lines())
    with _saving(folder / SUMMARY_FILE):
        (folder / SUMMARY_FILE).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return evaluation


def _header(model: ModelId, sample: Sample, plan: Plan, methods: Mapping[str, Settings]) -> Row:
    """All that the figures depend on, as JSON holds it."""
    header = {
        "format": "steerx-edge-evaluation",
        "data": sample.name,
        "digest": hashlib.sha256(repr(sample.people).encode()).hexdigest(),
        "people": len(sample.people),
        "users": sample.reported,
        "left_out": dict(sample.left_out),
        "model": asdict(model),
        **asdict(plan),
        "methods": {name: asdict(settings) for name, settings in methods.items()},
        "versions": {"steerx_edge": __version__, "llama_cpp_python": installed_version()},
    }
    plain: Row = json.loads(json.dumps(header))
    return plain


class Store:
    """Rows in a file of JSON lines, the first of which says what they are of.

    A line that was cut when a run was killed is dropped.

    Args:
        path: the file; made where there is none.
        header: the first line.

    Attributes:
        rows: what the file holds.

    Raises:
        SteerxError: the file cannot be used, or has another header.
    """

    def __init__(self, path: Path, header: Row) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            lines = [json.loads(line) for line in whole.splitlines()]
            if whole != data:
                os.truncate(path, len(whole))
            if not lines:
                for name in (SUMMARY_FILE, REPORT_FILE, PROFILES):
                    if path.with_name(name).exists():
                        raise SteerxError(
                            f"'{path.with_name(name)}' is of something else, and an evaluation "
                            "would replace it. Choose another folder (--output)."
                        )
                lines = [header]
                self._append(header)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it holds something else"
            raise SteerxError(
                f"Figures cannot be saved in '{path}': {reason}. Choose another folder (--output)."
            ) from error
        if lines[0] != header:
            raise SteerxError(
                f"'{path}' holds another evaluation: {_difference(lines[0], header)}. Use another "
                "folder (--output), or remove this one."
            )
        self.rows: dict[Unit, Row] = {(row["user"], row["method"]): row for row in lines[1:]}

    def add(self, row: Row) -> None:
        """Keep a row.

        Raises:
            SteerxError: it cannot be written.
        """
        with _saving(self._path):
            self._append(row)
        self.rows[row["user"], row["method"]] = row

    def _append(self, row: Row) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SteerxError(
            f"'{path}' cannot be written: {error.strerror}. Rerun the same command to resume."
        ) from error


def _difference(kept: object, header: Row) -> str:
    if not isinstance(kept, dict) or kept.get("format") != header["format"]:
        return "it holds something else"
    names = [name for name in header if kept.get(name) != header[name]]
    return ", ".join(
        f"{name} was {kept.get(name)} and is {header[name]} now"
        if len(f"{kept.get(name)}{header[name]}") < 60
        else f"{name} differs"
        for name in names
    )


@contextmanager
def _workers(
    engine: Engine, open_engine: Callable[[], Engine], what: tuple[Any, ...], processes: int
) -> Iterator[Callable[[Callable[[Evaluator, Unit], Any], Sequence[Unit]], Iterator[Any]]]:
    """A function that calls a method of an Evaluator for each unit, in any order."""
    if processes <= 1:
        evaluator = Evaluator(ArmsOf(engine, *what))
        yield lambda call, units: (call(evaluator, unit) for unit in units)
        return
    engine.close()
    engine.llama.close()
    executor = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start, (open_engine, what)
    )

    def run(call: Callable[[Evaluator, Unit], Any], units: Sequence[Unit]) -> Iterator[Any]:
        for future in as_completed([executor.submit(_call, call, unit) for unit in units]):
            yield future.result()

    try:
        yield run
    except BrokenProcessPool as error:
        raise SteerxError(
            "A process ended early, perhaps for lack of memory. Rerun the same command to resume, "
            "with fewer --processes."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_evaluator: Evaluator  # of a worker process


def _start(open_engine: Callable[[], Engine], what: tuple[Any, ...]) -> None:
    """Begin a worker process, which ends with its parent, and silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _evaluator
    _evaluator = Evaluator(ArmsOf(open_engine(), *what))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _call(call: Callable[[Evaluator, Unit], _T], unit: Unit) -> _T:
    return call(_evaluator, unit)
