"""The site as it is built: all links lead somewhere, and nothing comes from other servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools.blocks import ROOT

# Not with --quiet, which hides the warnings that --strict counts.
COMMAND = (sys.executable, "-m", "mkdocs", "build", "--strict")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?([^"' >]+)"""
    r"""|<link\b(?![^>]*rel=["']?(?:next|prev|canonical))[^>]*\bhref=["']?([^"' >]+)"""
    r"""|url\(["']?([^"')]+)|@import ["']([^"']+)"""
)

pytestmark = pytest.mark.slow


def build(site: Path, project: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--site-dir", str(site)],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_nothing_is_loaded_from_other_servers(site: Path) -> None:
    files = [file for pattern in ("*.html", "*.css") for file in site.rglob(pattern)]
    assert len(files) > len(list((ROOT / "docs").rglob("*.md")))
    for file in files:
        found = ["".join(each) for each in LOADED.findall(file.read_text("utf-8"))]
        assert found or file.suffix == ".css", file
        outside = [each for each in found if re.match(r"(https?:)?//", each)]
        assert not outside, file.name


def test_pictures_have_a_text(site: Path) -> None:
    for file in site.rglob("*.html"):
        for picture in re.findall(r"<img\b[^>]*>", file.read_text("utf-8")):
            assert re.search(r"""\balt=["']?[^"' >]""", picture), file.name


def test_the_api_page_holds_the_public_names(site: Path) -> None:
    import steerx_edge

    page = (site / "api.html").read_text("utf-8")
    names = set(steerx_edge.__all__) - {"__version__"}
    shown = set(re.findall(r'<h3 id="?steerx_edge\.(?:[\w.]+\.)?(\w+)', page))
    assert shown == names


def test_programs_are_not_part_of_the_site(site: Path) -> None:
    assert not list(site.rglob("*.py"))


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "steerx_edge").symlink_to(ROOT / "steerx_edge")
    broken = ("method.md#nowhere", "nowhere.md", "../README.md")
    with (tmp_path / "docs" / "limits.md").open("a", encoding="utf-8") as page:
        page.writelines(f"\n[somewhere]({target})\n" for target in broken)
    built = build(tmp_path / "site", tmp_path)
    assert built.returncode == 1
    for target in broken:
        assert f"'{target}'" in built.stderr
