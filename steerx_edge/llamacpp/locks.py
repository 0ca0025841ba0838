"""What threads, forks and the end of the interpreter mean for llama.cpp at work.

llama.cpp computes on one context for one thread at a time. Neither its own threads nor OpenMP's
survive a fork. And where the interpreter ends, Python unwinds the stack of a thread that comes back
from C++, which C++ answers by ending the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp import compat

_FORKED = (
    "This model was loaded before the process was forked, and llama.cpp does not survive that. "
    "Create an engine in each process."
)


class ContextLock:
    """What llama.cpp does on one context, for one thread at a time and in one process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()
        _every[id(self)] = self

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold while llama.cpp works. Raises as `check` does, before and after it waits."""
        self.check()  # after a fork nobody may release the lock
        with self._lock:
            self.check()
            yield

    def free(self, free: Callable[[], object], *held: object) -> None:
        """Call `free`, unless llama.cpp may not work any more: `held` then lives as long as we do.

        llama.cpp writes to its log, and thus calls Python, where it frees a context too.
        """
        try:
            with self.held():
                free()
        except (ModelError, SystemExit):
            if not self._is_over:
                raise
            _left.append(held)

    def check(self) -> None:
        """Raise if llama.cpp may not work any more.

        Raises:
            ModelError: in a process forked from the one that began.
            SystemExit: at the end of the interpreter, in all threads but the main one. It ends a
                daemon thread quietly, as Python itself would.
        """
        if self._is_inherited:
            raise ModelError(_FORKED)
        if self._is_ended:
            raise SystemExit

    @property
    def _is_over(self) -> bool:
        return self._is_inherited or self._is_ended

    @property
    def _is_inherited(self) -> bool:
        return os.getpid() != self._process

    @property
    def _is_ended(self) -> bool:
        return _ending and threading.current_thread() is not threading.main_thread()


_every: WeakValueDictionary[int, ContextLock] = WeakValueDictionary()
_left: list[object] = []
_ending = False


def _end_all() -> None:
    """Wait until no thread runs llama.cpp, and keep others from starting."""
    global _ending
    _ending = True
    for reference in _every.valuerefs():  # a copy: other threads may still make some
        work = reference()
        if work is not None:
            with work.held():
                pass


def _end_openmp_threads() -> None:
    """Without this, GNU OpenMP waits in the child for threads that only the parent has."""
    compat.end_openmp_threads()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_openmp_threads, after_in_child=_every.clear)
