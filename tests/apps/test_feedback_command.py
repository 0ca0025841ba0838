"""Drafts on the command line: what `generate`, `chat` and `feedback` keep, and what is learned."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.learning.feedback import learn_from_drafts
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Draft, Profile, feedback, keep_draft, read_drafts
from tests.support.drafts import ALIKE, addable, idle
from tests.support.histories import without_time

WRITE = ("-n", "8", "--temp", "0", "-c", "256")
KEPT = "me.drafts.jsonl"


@pytest.fixture(autouse=True)
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Profile:
    """Of the tiny chat model, saved as me.json in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    with closing(Engine(tiny_chat.path, n_ctx=256, n_threads=1).llama) as llama:
        learned = addable(Engine(llama), monkeypatch)
    learned.save("me.json")
    return Profile.load("me.json")


def run(*arguments: str, code: int = 0, given: str | bytes = "") -> Result:
    result = CliRunner().invoke(main, arguments, input=given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def told() -> list[tuple[str, str, str | None]]:
    """The request, the proposal, and what was made of it, of each draft."""
    return [(each.request, each.proposed, each.final) for each in read_drafts("me.json").kept]


# ---------------------------------------------------------------- generate


@pytest.mark.parametrize("how", [(), ("--no-steer",)])
def test_generate_keeps_its_answer_only_when_asked(how: tuple[str, ...]) -> None:
    command = ("generate", "--profile", "me.json", "-p", "Alice was late", *WRITE, *how)
    answer = run(*command).stdout
    assert not Path(KEPT).exists()
    result = run(*command, "--keep-drafts")
    assert result.stdout == answer
    assert "When you have edited it: steerx-edge feedback me.json --final FILE" in result.stderr
    assert told() == [("Alice was late", answer.strip(), None)]


@pytest.mark.parametrize("other", ["--raw", "--compare"])
def test_one_answer_to_a_request_can_be_kept(other: str) -> None:
    command = ("generate", "--profile", "me.json", "-p", "Alice", *WRITE, "--keep-drafts", other)
    said = run(*command, code=2).stderr
    assert "--keep-drafts cannot be combined with --raw or --compare." in said


# ---------------------------------------------------------------- feedback


def test_feedback_is_on_the_latest_draft_that_waits_for_it() -> None:
    for proposed, final in (("One.", None), ("Two.", None), ("Three.", "3")):
        feedback("me.json", proposed=proposed, final=final, request=f"Count: {proposed}")
    Path("sent.txt").write_text("2, says Ana\n")
    result = run("feedback", "me.json", "--final", "sent.txt")
    assert result.stderr == (
        f"{KEPT} holds 3 drafts: 2 edited, 0 unchanged, 0 rejected, 1 without feedback.\n"
    )
    assert result.stdout == ""
    run("feedback", "me.json", "--final", "-", given="one\r\n")
    assert told() == [
        ("Count: Three.", "Three.", "3"),
        ("Count: Two.", "Two.", "2, says Ana"),
        ("Count: One.", "One.", "one"),
    ]
    said = run("feedback", "me.json", "--rejected", code=1).stderr
    assert said.startswith("Error: No draft next to me.json waits for feedback.")


def test_feedback_on_a_text_from_anywhere() -> None:
    Path("draft.txt").write_bytes("\ufeffDear Ana,\nit is late.\n".encode())
    given = ("--proposed", "draft.txt", "--request", "Tell Ana.")
    run("feedback", "me.json", *given, "--final", "-", given="Ana, it's late.\n")
    assert told() == [("Tell Ana.", "Dear Ana,\nit is late.", "Ana, it's late.")]
    assert stat.S_IMODE(Path(KEPT).stat().st_mode) == 0o600
    said = run("feedback", "me.json", *given, "--rejected").stderr
    assert "holds 1 draft: 0 edited, 0 unchanged, 1 rejected, 0 without feedback." in said


def test_feedback_alone_says_what_there_is() -> None:
    assert run("feedback", "me.json").stderr == "There are no drafts next to me.json.\n"
    keep_draft("me.json", Draft("The same.", "the same."))
    with Path(KEPT).open("a") as file:
        file.write("{\n")
    assert run("feedback", "me.json").stderr == (
        f"{KEPT} holds 1 draft: 0 edited, 1 unchanged, 0 rejected, 0 without feedback.\n"
        "Warning: skipped 1 line that cannot be read.\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--final", "me.json", "--rejected"], "--final and --rejected cannot be combined"),
        (["--proposed", "me.json"], "--proposed needs --final or --rejected"),
        (["--final", "me.json", "--request", "x"], "--request needs --proposed"),
        (["--final", "-", "--proposed", "-"], "Only one of --proposed and --final can be -"),
        (["--final", "-"], "The text of --final is empty. If you wrote none: --rejected"),
        (["-m", "x.gguf"], "-m needs --apply"),
    ],
)
def test_a_wrong_command_line_keeps_nothing(options: list[str], message: str) -> None:
    assert message in run("feedback", "me.json", *options, code=2).stderr
    assert not Path(KEPT).exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.txt", "Error: 'no.txt' cannot be read: No such file or directory.\n"),
        ("\0", "Error: '\\x00' cannot be read: embedded null byte.\n"),
        ("bytes", "Error: 'bytes' is not UTF-8 text.\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(path: str, message: str) -> None:
    Path("bytes").write_bytes(b"\xff")
    said = run("feedback", "me.json", "--proposed", "me.json", "--final", path, code=1).stderr
    assert said == message
    assert not Path(KEPT).exists()


def test_a_draft_needs_a_profile() -> None:
    options = ("--proposed", "me.json", "--rejected")
    said = run("feedback", "you.json", *options, code=1).stderr
    assert said == "Error: you.json: there is no such profile: learn one first\n"
    assert run("feedback", "you.json", code=1).stderr == said


# ---------------------------------------------------------------- feedback --apply


def test_drafts_that_help_are_learned_from(profile: Profile, tiny_chat: TinyModel) -> None:
    for draft in ALIKE:
        keep_draft("me.json", draft)
    said = run("feedback", "me.json", "--apply").stderr
    with closing(Engine(tiny_chat.path, n_ctx=256, n_threads=1).llama) as llama:
        expected = learn_from_drafts(Engine(llama), profile, ALIKE)
    assert expected.before is not None
    assert expected.change is not None
    assert f"On 5 held-out drafts, me.json gains {expected.before.mean:+.3f} nats/token" in said
    assert f"With the other drafts added: {expected.change.mean:+.3f} nats/token" in said
    assert said.endswith("Saved me.json.\n")
    assert without_time(Profile.load("me.json")) == without_time(expected.profile)
    before = Path("me.json").read_bytes()
    said = run("feedback", "me.json", "--apply").stderr
    assert "0 edited drafts not learned from yet; 4 are needed." in said
    assert Path("me.json").read_bytes() == before


def test_drafts_that_do_not_help_are_not_learned_from(profile: Profile) -> None:
    idle(profile).save("me.json")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    for draft in ALIKE:
        keep_draft("me.json", draft)
    said = run("feedback", "me.json", "--apply").stderr
    assert "That is no improvement: me.json was not changed. The drafts stay.\n" in said
    assert {path: path.read_bytes() for path in before} == before


def test_learning_needs_a_profile_that_can_be_written_and_added_to(profile: Profile) -> None:
    assert "you.json: cannot be read" in run("feedback", "you.json", "--apply", code=1).stderr
    for draft in ALIKE:
        keep_draft("me.json", draft)
    run("forget", "--profile", "me.json")
    said = run("feedback", "me.json", "--apply", code=1).stderr
    assert "has no memory" in said
    assert profile.entries


# ---------------------------------------------------------------- chat


def chat(*lines: str, options: tuple[str, ...] = ("--keep-drafts",)) -> Result:
    given = "".join(f"{line}\n" for line in lines)
    return run("chat", "--profile", "me.json", *WRITE, *options, given=given)


def test_good_and_bad_are_about_the_last_answer() -> None:
    result = chat("Hello", "/good", "Again?", "/bad")
    first, second = (line.strip() for line in result.stdout.split("\n")[:2])
    assert result.stdout == chat("Hello", "Again?").stdout
    assert told() == [("Hello", first, first), ("Again?", second, "")]
    assert "Kept. Learn from your drafts: steerx-edge feedback me.json --apply" in result.stderr


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that puts what it finds into a file, and the word "Mine" into its place."""
    program = tmp_path / "editor"
    # The clock of a file may be coarse, and an editor's file counts as saved if it is newer.
    program.write_text('#!/bin/sh\ncp "$1" found.txt\nprintf "Mine\\n" > "$1"\n')
    program.chmod(0o700)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(program))
    return program


@pytest.mark.usefixtures("editor")
def test_an_edited_answer_is_kept_and_takes_its_place_in_the_conversation() -> None:
    result = chat("Hello", "/edit", "And now?")
    answer, after, _ = result.stdout.split("\n")
    assert Path("found.txt").read_text().strip() == answer.strip()
    assert told() == [("Hello", answer.strip(), "Mine")]
    assert after != chat("Hello", "And now?").stdout.split("\n")[1]


@pytest.mark.usefixtures("editor")
def test_an_edited_answer_can_be_taken_as_it_is_or_rejected() -> None:
    for command, final in (("/good", "Mine"), ("/bad", "")):
        answer = chat("Hello", "/edit", command).stdout.strip()
        assert told() == [("Hello", answer, final)]


@pytest.mark.usefixtures("editor")
def test_another_profile_gets_its_own_drafts(profile: Profile) -> None:
    profile.save("you.json")
    chat("/profile you.json", "Hello", "/edit")
    assert not Path(KEPT).exists()
    assert len(read_drafts("you.json").edited) == 1


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["Hello", "/good"], (), "Start the chat with --keep-drafts"),
        (["/good"], ("--keep-drafts",), "there is no answer yet"),
        (["Hello", "/reset", "/bad"], ("--keep-drafts",), "there is no answer yet"),
    ],
)
def test_without_an_answer_or_leave_nothing_is_kept(
    lines: list[str], options: tuple[str, ...], message: str
) -> None:
    assert message in chat(*lines, options=options).stderr
    assert not Path(KEPT).exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("exit 1", "Error: The editor "),
        ("exit 0", "Nothing was saved in the editor: nothing is kept."),
        ('printf "" > "$1"', "Nothing was saved in the editor: nothing is kept."),
    ],
)
def test_an_editor_that_saves_nothing_ends_no_chat(
    editor: Path, program: str, message: str
) -> None:
    editor.write_text(f"#!/bin/sh\n{program}\n")
    result = chat("Hello", "/edit", "And now?")
    assert message in result.stderr
    assert result.stdout == chat("Hello", "And now?").stdout
    assert not Path(KEPT).exists()


# ---------------------------------------------------------------- forget


def test_forgetting_everything_removes_the_drafts() -> None:
    keep_draft("me.json", ALIKE[0])
    said = run("forget", "--profile", "me.json").stderr
    assert said == f"Removed me.memory.gguf and {KEPT}. me.json has no memory now.\n"
    assert not Path(KEPT).exists()


def test_forgetting_a_text_removes_its_drafts_and_no_others() -> None:
    for draft in ALIKE[:2]:
        keep_draft("me.json", draft)
    Path("text.txt").write_text(ALIKE[0].final or "")
    said = run("forget", "--profile", "me.json", "--text", "text.txt").stderr
    assert said == "Removed the drafts that held these texts.\n"
    assert read_drafts("me.json").kept == ALIKE[1:2]
