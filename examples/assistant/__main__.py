"""`python -m examples.assistant`: start the assistant."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from steerx_edge.llamacpp.waiting import wait_briefly


def parser() -> argparse.ArgumentParser:
    """The options, named as those of llama.cpp where it has them."""
    options = argparse.ArgumentParser(
        "python -m examples.assistant", description="Answer mail in your own voice."
    )
    options.add_argument(
        "--profiles", required=True, type=Path, metavar="DIR", help="the folder of your profiles"
    )
    options.add_argument(
        "-m",
        "--model",
        help="a GGUF file, or the name of a model (default: the one that a profile was learned on)",
    )
    options.add_argument("-c", "--ctx-size", type=int, default=4096, metavar="N")
    options.add_argument("-t", "--threads", type=int, metavar="N")
    options.add_argument("-ngl", "--n-gpu-layers", type=int, default=0, metavar="N")
    options.add_argument(
        "-n", "--n-predict", type=int, default=400, metavar="N", help="tokens of a reply, at most"
    )
    options.add_argument("--temp", type=float, default=0.8, metavar="T")
    options.add_argument("--seed", type=int, metavar="N")
    options.add_argument("mail", nargs="?", type=Path, help="a mail to open at once")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the window until it is closed.

    Returns:
        The exit status.
    """
    given = parser().parse_args(arguments)
    if not given.profiles.is_dir():
        parser().error(f"--profiles {given.profiles} is not a folder.")
    wait_briefly()
    try:
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QApplication
    except ImportError as error:
        sys.stderr.write(f"The window needs PySide6: pip install PySide6. ({error})\n")
        return 1

    from examples.assistant.session import Options
    from examples.assistant.style import palette_of, theme_for
    from examples.assistant.window import Window
    from examples.assistant.worker import Worker

    app = QApplication(sys.argv[:1])
    app.setStyle("fusion")
    hints = app.styleHints()
    theme = theme_for(hints.colorScheme())
    app.setPalette(palette_of(theme))
    worker = Worker(
        Options(
            model=given.model,
            n_ctx=given.ctx_size,
            n_threads=given.threads,
            n_gpu_layers=given.n_gpu_layers,
            max_tokens=given.n_predict,
            temperature=given.temp,
            seed=given.seed,
        )
    )
    try:
        window = Window(worker, given.profiles, theme)

        def change_theme() -> None:
            changed = theme_for(hints.colorScheme())
            app.setPalette(palette_of(changed))
            window.set_theme(changed)

        hints.colorSchemeChanged.connect(change_theme)
        app.setQuitOnLastWindowClosed(False)
        window.closed.connect(app.quit)
        signal.signal(signal.SIGINT, lambda *_: window.close())
        ticks = QTimer()  # Python sees a signal only when it runs
        ticks.timeout.connect(lambda: None)
        ticks.start(200)
        window.resize(1100, 750)
        window.show()
        if given.mail is not None:
            window.open_mail(given.mail)
        return app.exec()
    finally:
        worker.end()
        worker.wait()


if __name__ == "__main__":
    sys.exit(main())
