"""Break the package on purpose, and see that a test fails: `make mutants`.

Works in a copy of the tree. Prints a line for each break of breaks.py, and exits with 1 if one is
missed, if its text is not found any more, or if its tests fail without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutations.breaks import BREAKS, Break  # noqa: E402

SECONDS = 600  # for the tests of one break
SOURCES = {".py", ".cpp", ".hpp"}
FAILED = 1  # pytest's exit code where a test failed

# An editable install finds the package in the working tree, whatever the path says.
NO_EDITABLE_INSTALL = """\
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__name__.startswith("ScikitBuild")]
"""


class BadBreakError(Exception):
    """A break that cannot be tried."""


class Tree:
    """A copy of the tree, as it is now.

    Args:
        folder: where it is put.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._sound: dict[str, bool] = {}  # tests that pass without a break
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        (self.root / "sitecustomize.py").write_text(NO_EDITABLE_INSTALL, "utf-8")
        path = [str(self.root), os.environ.get("PYTHONPATH", "")]
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONDONTWRITEBYTECODE": "1",  # versions of a file may have the same time and size
        }
        spec = importlib.util.find_spec("steerx_edge._native")
        if spec is None or spec.origin is None:
            raise BadBreakError("The extension is not built: run `make test` once.")
        self._extension = Path(spec.origin)
        self.restore_extension()
        used = self.python("-c", "import steerx_edge; print(steerx_edge.__file__)").stdout
        if not used.startswith(str(self.root)):
            raise BadBreakError(f"The tests would run {used.strip()}, not the copy.")

    def restore_extension(self) -> None:
        """The one that was built from the sources without a break."""
        shutil.copy2(self._extension, self.root / "steerx_edge" / self._extension.name)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python on the copy."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def tests_fail(self, arguments: str) -> bool:
        """Whether one of some tests fails; one that hangs does.

        Raises:
            BadBreakError: they cannot be run.
        """
        options = ("-q", "-x", "--tb=no", "--no-header", "-p", "no:cacheprovider")
        try:
            result = self.python("-m", "pytest", *options, *shlex.split(arguments))
        except subprocess.TimeoutExpired:
            return True
        if result.returncode not in (0, FAILED):
            last = (result.stdout + result.stderr).strip().splitlines()[-3:]
            raise BadBreakError(f"pytest ends with {result.returncode}: {' / '.join(last)}")
        return result.returncode == FAILED

    def compile(self) -> None:
        """Build the extension from the copy, with CMake and a compiler of this machine."""
        build = self.root.parent / "wheel"
        shutil.rmtree(build, ignore_errors=True)
        result = self.python("-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(build), ".")
        if result.returncode:
            raise BadBreakError(f"it does not compile: {result.stderr.strip().splitlines()[-1]}")
        (wheel,) = build.glob("*.whl")
        shutil.unpack_archive(wheel, build / "unpacked", "zip")
        pattern = f"_native*{self._extension.suffix}"
        (extension,) = (build / "unpacked" / "steerx_edge").glob(pattern)
        shutil.copy2(extension, self.root / "steerx_edge" / self._extension.name)

    def file_with(self, each: Break) -> Path:
        """The file that holds the text of a break.

        Raises:
            BadBreakError: there is none, or the text is there several times.
        """
        place = self.root / each.where
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        counts = {
            file: file.read_text("utf-8").count(each.old)
            for file in files
            if file.suffix in SOURCES and file.is_file()
        }
        if sum(counts.values()) != 1:
            raise BadBreakError(f"the text is there {sum(counts.values())} times in {each.where}")
        return max(counts, key=lambda file: counts[file])

    def notices(self, each: Break) -> bool:
        """Whether the tests of a break fail with it.

        Raises:
            BadBreakError: it cannot be tried, or they fail without it.
        """
        file = self.file_with(each)
        if each.tests not in self._sound:
            self._sound[each.tests] = not self.tests_fail(each.tests)
        if not self._sound[each.tests]:
            raise BadBreakError(f"these fail without it: {each.tests}")
        whole = file.read_text("utf-8")
        file.write_text(whole.replace(each.old, each.new), "utf-8")
        try:
            if each.is_native:
                self.compile()
            return self.tests_fail(each.tests)
        finally:
            file.write_text(whole, "utf-8")
            if each.is_native:
                self.restore_extension()


def main() -> int:
    """Try the breaks, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", help="only breaks whose name or file holds this")
    parser.add_argument("--native", action="store_true", help="those that are compiled, too")
    arguments = parser.parse_args()
    chosen = [each for each in BREAKS if arguments.k in f"{each.name} {each.where}"]
    skipped = [each for each in chosen if each.is_native and not arguments.native]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        for each in chosen:
            if each in skipped:
                continue
            begin = time.monotonic()
            try:
                said = "caught" if tree.notices(each) else "MISSED"
            except BadBreakError as error:
                said = f"CANNOT BE TRIED, {error}"
            bad += said != "caught"
            seconds = time.monotonic() - begin
            print(f"{each.name} ({each.where}): {said}, {seconds:.0f} s", flush=True)
    n_tried = len(chosen) - len(skipped)
    print(f"{n_tried - bad} of {n_tried} caught; {len(skipped)} not tried without --native")
    return 1 if bad or not n_tried else 0


if __name__ == "__main__":
    sys.exit(main())
