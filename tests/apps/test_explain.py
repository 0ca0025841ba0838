"""`steerx-edge explain`: what it prints and writes, of texts and of answers."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from models import TinyModel
from steerx_edge.apps.cli import main
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE
from steerx_edge.profile import Profile
from tests.explaining.conftest import TEXTS, entry_of
from tests.support.exports import WHATSAPP_CHAT

PRIVATE = "It holds your texts and is readable only by you (mode 0600).\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    """With a profile of the tiny model, and the texts that it was learned from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    with closing(Engine(tiny_chat.path, n_ctx=256, n_threads=1).llama) as llama:
        Profile((entry_of(Engine(llama), strength=0.9),)).save("me.json")
    lines = [json.dumps({"prompt": item.request, "response": item.response}) for item in TEXTS]
    Path("mine.jsonl").write_text("\n".join(lines), "utf-8")
    return tmp_path


def explain(*arguments: str, code: int = 0) -> Result:
    given = ["explain", "--profile", "me.json", "-t", "1", *arguments]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_texts_in_the_terminal() -> None:
    result = explain("mine.jsonl", "-n", "2")
    assert "Text 2\n" in result.stdout
    assert "Text 3\n" in result.stdout
    assert "Text 1\n" not in result.stdout
    assert "in the memory with weight 0: the word is in the request" in result.stdout
    assert "Rabbit" not in result.stderr


def test_it_is_said_who_of_a_chat_is_meant() -> None:
    Path("chat.txt").write_text(WHATSAPP_CHAT)
    assert explain("chat.txt", code=1).stderr.endswith("(me, --me).\n")
    shown = explain("chat.txt", "--me", "Kim", "--json").stdout
    texts = [
        "".join(word["text"] for word in text["words"]).strip()
        for text in json.loads(shown)["texts"]
    ]
    assert texts == [f"I will bring the jug {i}." for i in range(8)]


def test_texts_as_json() -> None:
    facts = json.loads(explain("mine.jsonl", "--json").stdout)
    assert [text["number"] for text in facts["texts"]] == [1, 2, 3]
    assert facts["level"] == "causal"
    for text, item in zip(facts["texts"], TEXTS, strict=True):
        assert "".join(word["text"] for word in text["words"]).strip() == item.response
        assert text["was_read"]


@pytest.mark.parametrize(
    "arguments",
    [("mine.jsonl",), ("-p", "Write about Alice", "-n", "8")],
)
def test_pages_are_private(folder: Path, arguments: tuple[str, ...]) -> None:
    result = explain(*arguments, "--html", "page.html")
    assert result.stdout == ""
    assert result.stderr.endswith(f"Wrote page.html. {PRIVATE}")
    assert stat.S_IMODE((folder / "page.html").stat().st_mode) == 0o600


def test_an_answer_and_its_sources_as_json() -> None:
    result = explain(
        *("-p", TEXTS[0].request, "-n", "6", "--history", "mine.jsonl", "--json", "--seed", "3")
    )
    facts = json.loads(result.stdout)
    assert len(facts["steered"]) <= 6
    parts = ("model", "directions", "logit_bias", "memory")
    for token in facts["steered"]:
        assert sum(token[part] for part in parts) == pytest.approx(token["log_prob"], abs=1e-12)
    found = [
        text["number"]
        for token in facts["steered"]
        for source in token["sources"]
        for text in source["texts"]
    ]
    assert found
    assert {*found} <= {1, 2, 3}


def test_an_answer_in_the_terminal_is_that_of_generate() -> None:
    prompt = ("-p", "Write about Alice", "-n", "6")
    given = ["generate", "--profile", "me.json", "-t", "1", *prompt, "--temp", "0"]
    generated = CliRunner().invoke(main, given, catch_exceptions=False).stdout.strip("\n")
    facts = json.loads(explain(*prompt, "--json").stdout)
    answer = "".join(token["text"] for token in facts["steered"]).removesuffix("‹end›")
    assert answer.strip("\n") == generated
    assert "--- without the profile\n" in explain(*prompt).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Give either HISTORY or -p PROMPT."),
        (("mine.jsonl", "-p", "x"), "Give either HISTORY or -p PROMPT."),
        (("mine.jsonl", "--history", "mine.jsonl"), "--history needs -p."),
        (("mine.jsonl", "-n", "0"), "-n is 0. Give 1 text or more."),
        (("-p", " "), "The prompt is empty."),
        *(
            (
                ("mine.jsonl", "--html", read),
                f"'{read}' is read, and would be overwritten. Choose another name.",
            )
            for read in ("mine.jsonl", "me.json")
        ),
        (("-p", "x", "--user", "me"), "--me, --user, --response and --request need your texts."),
    ],
)
def test_usage_errors_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    assert explain(*arguments, code=2).stderr.endswith(f"Error: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no.jsonl",), "no.jsonl"),
        (("mine.jsonl", "--html", "no/page.html"), "there is no folder"),
        (("-p", "word " * 600), "at most"),
    ],
)
def test_other_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    error = explain(*arguments, code=1).stderr
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert sentence in error
