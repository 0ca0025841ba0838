"""What tests of the desktop assistant share: an event loop that runs until something is so."""

from __future__ import annotations

from collections.abc import Callable

MAIL = "Subject: Tuesday\n\nDear Mo,\n\nis Tuesday fine?\n\nAna\n"

_LONGEST = 120_000  # milliseconds; a machine that runs other tests is slow


def wait_for(condition: Callable[[], bool]) -> None:
    """Run the event loop, as in a window that somebody uses, until a condition holds."""
    from PySide6.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    often, at_last = QTimer(), QTimer()

    def look() -> None:
        if condition():
            loop.quit()

    often.timeout.connect(look)
    at_last.timeout.connect(loop.quit)
    often.start(5)
    at_last.start(_LONGEST)
    if not condition():
        loop.exec()
    assert condition()
