"""Learn, generate and chat as a user does: a real model, real texts, real processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from llama_cpp import Llama

from steerx_edge.history.reading import read_history
from steerx_edge.live import steer
from steerx_edge.llamacpp.models import MODEL_VARIABLE, identify
from steerx_edge.llamacpp.prompts import PromptFormat, messages_for
from steerx_edge.profile import Profile
from tests.support.steered_llama import chat, complete, reset

DEMO = Path(__file__).parents[2] / "docs" / "demo"
PROGRAM = Path(sys.executable).with_name("steerx-edge")
N_ITEMS = 4
N_TOKENS = 12
STRENGTH = 0.3  # enough for the first few tokens to differ
PROMPT = "Write a mail to Nils: the coffee machine is leaking."


class Learned(NamedTuple):
    """The results of one run of `steerx-edge learn`.

    Attributes:
        folder: where it ran.
        stdout: its standard output, a pipe.
        screen: what the terminal got, all of standard error.
    """

    folder: Path
    stdout: bytes
    screen: str

    @property
    def profile(self) -> Profile:
        return Profile.load(self.folder / "me.json")


@pytest.fixture(scope="module")
def environment(smollm2_path: Path) -> dict[str, str]:
    """The user's environment without settings of ours, with a color terminal."""
    assert smollm2_path.exists()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLAMA_ARG_", "STEERX_EDGE_"))
    }
    ours = {"TERM": "xterm", "COLUMNS": "100", "LLAMA_ARG_THREADS": "1"}
    return {**kept, **ours, MODEL_VARIABLE: str(smollm2_path)}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Learned:
    folder = tmp_path_factory.mktemp("road")
    lines = (DEMO / "history.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join(sorted(lines, key=len)[:N_ITEMS]), "utf-8")
    command = [str(PROGRAM), "learn", "history.jsonl", "-o", "me.json", "--strength", str(STRENGTH)]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=theirs
    ) as running:
        os.close(theirs)
        screen = b""
        with suppress(OSError):  # Linux, when the other end of the terminal is closed
            while chunk := os.read(ours, 4096):
                screen += chunk
        os.close(ours)
        assert running.stdout
        stdout = running.stdout.read()
    assert running.returncode == 0, screen.decode()
    return Learned(folder, stdout, screen.decode())


@pytest.fixture(scope="module")
def llama(smollm2_path: Path) -> Iterator[Llama]:
    llama = Llama(str(smollm2_path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield llama
    llama.close()


def generate(learned: Learned, environment: dict[str, str], *arguments: str) -> str:
    """Return what `steerx-edge generate` prints, run as a separate process."""
    command = [str(PROGRAM), "generate", "--profile", "me.json", "-p", PROMPT]
    command += ["-n", str(N_TOKENS), "--temp", "0", "-c", "512", *arguments]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=learned.folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def answer(llama: Llama, *contents: str) -> str:
    """Return the greedy answer to a chat of alternating turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return chat(llama, messages, N_TOKENS)


# ---------------------------------------------------------------- learning


def test_the_terminal_shows_progress_and_results(learned: Learned) -> None:
    assert learned.stdout == b""
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", learned.screen)
    assert f"Learning from {N_ITEMS} of {N_ITEMS} texts with" in screen
    assert re.search(r"^Estimated time: (\d+ minutes?|less than a minute)\.", screen, re.MULTILINE)
    for step in ("effects", "description", "stylevector", "done"):
        assert step in screen
    assert "calibration" not in screen  # as the strength was given
    assert re.search(rf"[1-9]/{2 * N_ITEMS}\b", screen)  # each item alone, then beside others
    assert "1/1" in screen
    entry = learned.profile.entries[0]
    assert entry.description.text in " ".join(screen.split())
    for word in entry.words[:12]:
        row = rf"^{re.escape(word.word)} +{re.escape(f'{word.effect:+.2f}')} "
        assert re.search(row, screen, re.MULTILINE)
    assert "Saved me.json." in screen
    assert "Traceback" not in screen
    assert "llama_" not in screen  # llama.cpp's own log


def test_the_profile_says_what_it_was_learned_from(learned: Learned, llama: Llama) -> None:
    (entry,) = learned.profile.entries
    assert entry.model == identify(llama)
    assert entry.counts["items"] == N_ITEMS
    assert entry.strengths.tolist() == [np.float32(STRENGTH)]
    items = read_history(learned.folder / "history.jsonl")
    tokens = [llama.tokenize(item.response.encode(), add_bos=False) for item in items]
    assert entry.counts["tokens"] == sum(map(len, tokens))
    assert 0 < entry.counts["anchors"] < entry.counts["tokens"]
    words = {word.casefold() for item in items for word in re.findall(r"[\w'-]+", item.response)}
    assert entry.words
    assert {word.word.casefold() for word in entry.words if word.word.isalpha()} <= words
    np.testing.assert_allclose(np.linalg.norm(entry.directions, axis=1), 1, atol=1e-3)


# ---------------------------------------------------------------- generating


def test_the_program_generates_what_the_library_does(
    learned: Learned, environment: dict[str, str], llama: Llama
) -> None:
    prompt = PromptFormat(llama).tokens(messages_for(PROMPT))

    def library() -> str:
        return complete(llama, prompt, N_TOKENS) + "\n"

    plain = library()
    with steer(llama, learned.profile):
        steered = library()
    assert steered != plain
    assert generate(learned, environment) == steered
    both = generate(learned, environment, "--strength", "0", "--compare")
    assert both == f"--- without the profile\n{plain}--- with me.json, strength 0\n{plain}"


def test_a_chat_is_steered_and_leaves_nothing_behind(learned: Learned, llama: Llama) -> None:
    plain = answer(llama, PROMPT)
    profile = learned.profile
    with steer(llama, profile) as steering:
        first = answer(llama, PROMPT)
        second = answer(llama, PROMPT, first, "And one to Clara.")
        assert answer(llama, PROMPT) == first != plain
        steering.strength = 0.0
        assert answer(llama, PROMPT) == plain
        steering.strength = 1.0
        assert answer(llama, PROMPT, first, "And one to Clara.") == second
    assert answer(llama, PROMPT) == plain

    reset(llama)  # as on a fresh model
    with steer(llama, profile):
        assert answer(llama, PROMPT, first, "And one to Clara.") == second
