"""Reading histories and per-author files: what is read, and what is said of what cannot be."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.errors import HistoryError
from steerx_edge.history.item import HistoryItem, User
from steerx_edge.history.readers.authors import TASKS
from steerx_edge.history.reading import has_users, read_history, read_users
from steerx_edge.history.words import normalized

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"

Item = dict[str, object]
"""An object of a JSON file."""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_rows(folder: Path, *rows: Item) -> Path:
    return write(folder, "rows.jsonl", "\n".join(json.dumps(row) for row in rows))


def author(profile: object, queries: object = None, user_id: str | int = "u1") -> Item:
    row = {"user_id": user_id, "profile": profile}
    return row if queries is None else {**row, "queries": queries}


def asked(*inputs: str) -> list[Item]:
    return [{"input": text, "output": "out"} for text in inputs]


class TestJsonLines:
    def test_prompt_and_response(self, tmp_path: Path) -> None:
        path = write_rows(
            tmp_path, {"prompt": "Ask.", "response": "Answer."}, {"response": "Unasked."}
        )
        assert read_history(path) == [HistoryItem("Answer.", "Ask."), HistoryItem("Unasked.", "")]

    def test_text_alone_has_no_request(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, {"text": "One."}, {"text": "Two.", "title": "ignored"})
        assert read_history(path) == [HistoryItem("One."), HistoryItem("Two.")]

    def test_texts_are_kept_to_the_letter(self, tmp_path: Path) -> None:
        text = "  Grüße\u2028an alle, 你好\n\n\ttab \U0001f600 "
        path = write(
            tmp_path, "a.jsonl", json.dumps({"prompt": text, "response": text}, ensure_ascii=False)
        )
        assert read_history(str(path)) == [HistoryItem(text, text)]

    @pytest.mark.parametrize(("encode", "newline"), [("utf-8", "\r"), ("utf-8-sig", "\r\n")])
    def test_byte_order_mark_and_line_ends(self, tmp_path: Path, encode: str, newline: str) -> None:
        content = newline.join(['{"text": "one"}', "", '{"text": "two"}', ""])
        path = write(tmp_path, "a.jsonl", content.encode(encode))
        assert [item.response for item in read_history(path)] == ["one", "two"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.json", '{"text": "one"}\n{"text": "two"}\n'),
            ("a", '{"text": "one"}\n{"text": "two"}\n'),
            ("a.jsonl", json.dumps([{"text": "one"}, {"text": "two"}], indent=1)),
        ],
    )
    def test_lines_and_arrays_are_recognized(self, tmp_path: Path, name: str, content: str) -> None:
        path = write(tmp_path, name, content)
        assert read_history(path) == [HistoryItem("one"), HistoryItem("two")]

    def test_fields_and_wording_given(self, tmp_path: Path) -> None:
        path = write_rows(
            tmp_path,
            {"title": "Barolo {2016}", "points": 93, "year": None, "note": "Tar and roses."},
        )
        assert read_history(
            path, response="note", prompt="Write of {title} ({points}, {{so}}){year}."
        ) == [HistoryItem("Tar and roses.", "Write of Barolo {2016} (93, {so}).")]

    def test_response_alone_takes_the_prompt_field(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, {"prompt": "Ask.", "mine": "A."}, {"mine": "B."})
        assert read_history(path, response="mine") == [
            HistoryItem("A.", "Ask."),
            HistoryItem("B.", ""),
        ]

    def test_prompt_as_the_users_own_text_is_not_its_request_too(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, {"prompt": "What I typed.", "response": "Some model."})
        assert read_history(path, response="prompt") == [HistoryItem("What I typed.")]

    def test_prompt_alone_words_the_request(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, {"prompt": "Ask.", "response": "A.", "to": "Ana"})
        assert read_history(path, prompt="Write to {to}.") == [HistoryItem("A.", "Write to Ana.")]

    def test_empty_texts_are_skipped_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write_rows(
            tmp_path, {"text": "one"}, {"text": " \n"}, {"text": None}, {"text": "two"}
        )
        with caplog.at_level(logging.WARNING):
            items = read_history(path)
        assert items == [HistoryItem("one"), HistoryItem("two")]
        assert caplog.messages == [f"{path}: skipped 2 of 4 items with empty text."]


class TestPlainText:
    def test_blank_lines_separate_the_texts(self, tmp_path: Path) -> None:
        path = write(
            tmp_path, "a.txt", "\ufeff\n\nOne,\r\nstill one. \n \t\n\tTwo.\n\n\n\n\nThree.\n"
        )
        assert [item.response for item in read_history(path)] == [
            "One,\nstill one.",
            "Two.",
            "Three.",
        ]
        assert {item.request for item in read_history(path)} == {""}

    @pytest.mark.parametrize("first", ["[Verse 1]", "{not json}"])
    def test_a_bracket_does_not_make_it_json(self, tmp_path: Path, first: str) -> None:
        path = write(tmp_path, "a.md", f"{first}\n\nTwo.")
        assert read_history(path) == [HistoryItem(first), HistoryItem("Two.")]


REVIEW = {
    "overall": 5.0,
    "description": 'A 3/8" {punch}',
    "summary": "",
    "reviewText": "It works.",
    "ts": 1,
}
REVIEW_REQUEST = (
    "Generate the review text written by a reviewer who has a given an overall rating of "
    '"5.0" for a product with description "A 3/8" {punch}". The summary of the review text is "".'
)
HEADLINE = ("A title", "Generate a headline for the following article: A text")
SUBJECT = ("A title", "Generate a subject for the following email: A text")
MAIL = ("A text", "Complete the text of the following email. title: A title. text:")
PAPER_TITLE = ("A title", "Generate a title for the following abstract of a paper: An abstract")
ABSTRACT = ("An abstract", 'Generate an abstract for the title "A title"')
TITLE_TEXT = {"id": "1", "title": "A title", "text": "A text"}
TITLE_ABSTRACT = {"id": "1", "title": "A title", "abstract": "An abstract"}


class TestTasks:
    @pytest.mark.parametrize(
        ("item", "queries", "expected"),
        [
            (REVIEW, asked(REVIEW_REQUEST), ("It works.", REVIEW_REQUEST)),
            (
                {"summary": "cats", "content": "A post."},
                asked("Generate the content for a reddit post dogs"),
                ("A post.", "Generate the content for a reddit post cats"),
            ),
            (TITLE_TEXT, None, HEADLINE),
            (TITLE_TEXT, asked("Generate a subject for the following email: B"), SUBJECT),
            (
                TITLE_TEXT,
                asked("Complete the text of the following email. title: B. text: Hi"),
                MAIL,
            ),
            (TITLE_ABSTRACT, None, ABSTRACT),
            (
                TITLE_ABSTRACT,
                asked('Generate an abstract for the title "B" using the following items: 1. c'),
                ABSTRACT,
            ),
            (
                TITLE_ABSTRACT,
                asked("Generate a title for the following abstract of a paper: B"),
                PAPER_TITLE,
            ),
            (
                {"text": "A tweet"},
                asked("Paraphrase the following tweet without any explanation before or after it:"),
                ("A tweet", ""),
            ),
            (
                {"prompt": "Ask", "response": "A.", "title": "t", "text": "x"},
                asked("Ask again"),
                ("A.", "Ask"),
            ),
        ],
    )
    def test_fields_and_queries_tell_the_task(
        self, tmp_path: Path, item: Item, queries: list[Item] | None, expected: tuple[str, str]
    ) -> None:
        path = write_rows(tmp_path, author([item], queries))
        response, request = expected
        assert read_history(path) == [HistoryItem(response, request)]

    def test_a_row_without_queries_is_read_like_the_others(self, tmp_path: Path) -> None:
        path = write_rows(
            tmp_path,
            author([TITLE_ABSTRACT], [], "u1"),
            author([TITLE_ABSTRACT], asked("Generate a title for the following abstract"), "u2"),
        )
        assert [user.history for user in read_users(path)] == [
            (HistoryItem(*PAPER_TITLE),),
            (HistoryItem(*PAPER_TITLE),),
        ]

    def test_the_queries_of_a_row_take_precedence_over_those_of_others(
        self, tmp_path: Path
    ) -> None:
        path = write_rows(
            tmp_path,
            author([TITLE_TEXT], asked("Generate a subject for the following email: B"), "u1"),
            author([TITLE_TEXT], asked("Generate a headline for the following article: B"), "u2"),
        )
        assert [user.history for user in read_users(path)] == [
            (HistoryItem(*SUBJECT),),
            (HistoryItem(*HEADLINE),),
        ]

    def test_options_take_precedence_over_detection(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, author([TITLE_TEXT], asked("Write about B")))
        assert read_history(path, response="text", prompt="Write about {title}") == [
            HistoryItem("A text", "Write about A title")
        ]
        assert read_history(path, response="text") == [HistoryItem("A text", "")]
        path = write_rows(tmp_path, author([REVIEW]))
        assert read_history(path, prompt="Review {description}.") == [
            HistoryItem("It works.", 'Review A 3/8" {punch}.')
        ]


class TestUsers:
    ROWS = (
        author([{"text": "a1"}, {"text": "a2"}], asked("Continue this passage: q"), "a"),
        author([{"text": "b1"}], [], "b"),
        author([{"text": "c1"}], None, 7),
    )

    def test_one_user_is_picked(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, *self.ROWS)
        assert read_history(path, user="b") == [HistoryItem("b1")]
        assert read_history(path, user="7") == [HistoryItem("c1")]

    def test_a_single_user_need_not_be_named(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, self.ROWS[0])
        assert read_history(path) == [HistoryItem("a1"), HistoryItem("a2")]

    def test_all_users_with_their_queries(self, tmp_path: Path) -> None:
        assert list(read_users(write_rows(tmp_path, *self.ROWS))) == [
            User(
                "a",
                (HistoryItem("a1"), HistoryItem("a2")),
                (HistoryItem("out", "Continue this passage: q"),),
            ),
            User("b", (HistoryItem("b1"),), ()),
            User("7", (HistoryItem("c1"),), ()),
        ]

    def test_queries_without_an_output_are_skipped_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        queries = [{"input": "i", "output": ""}, {"input": "j", "output": "o"}]
        path = write_rows(tmp_path, author([{"text": "t"}], queries))
        (user,) = read_users(path)
        assert user.queries == (HistoryItem("o", "j"),)
        assert caplog.messages == [f"{path}: line 1: skipped 1 of 2 queries with empty text."]

    def test_rows_as_longlamp_publishes_them(self, tmp_path: Path) -> None:
        query = 'Generate an abstract for the title "B" using the following items: 1. c'
        path = write_rows(
            tmp_path, {"name": "N", "input": query, "output": "An out", "profile": [TITLE_ABSTRACT]}
        )
        assert list(read_users(path)) == [
            User("N", (HistoryItem(*ABSTRACT),), (HistoryItem("An out", query),))
        ]

    def test_rows_as_lamp_publishes_them(self, tmp_path: Path) -> None:
        row = {"id": "500", "input": "Generate a title for this", "profile": [TITLE_ABSTRACT]}
        path = write(tmp_path, "dev_questions.json", json.dumps([row, {**row, "id": "501"}]))
        assert [user.id for user in read_users(path)] == ["500", "501"]
        assert read_history(path, user="500") == [HistoryItem(*PAPER_TITLE)]

    def test_the_fields_that_name_an_author_have_an_order_of_precedence(
        self, tmp_path: Path
    ) -> None:
        row: Item = {"profile": [{"text": "one"}]}
        for field in ("id", "author", "name", "reviewerId", "user_id"):
            row[field] = field
            (user,) = read_users(write_rows(tmp_path, row))
            assert user.id == field

    def test_prompt_and_response_given_for_all_users(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path, author([{"note": "n", "title": "t"}]))
        (user,) = read_users(path, response="note", prompt="Note {title}")
        assert user.history == (HistoryItem("n", "Note t"),)


WRITING = "My dear Watson"
FIVE = [author([{"text": WRITING}], [], f"u{n}") for n in range(5)]

ERRORS = {
    "empty file": ("a.jsonl", "", {}, "a.jsonl is empty"),
    "byte order mark alone": ("a.txt", "\ufeff", {}, "a.txt is empty"),
    "invalid UTF-8": (
        "a.txt",
        b"one\ntwo \xff",
        {},
        "a.txt is not UTF-8 text (byte 0xff on line 2). Save it as UTF-8",
    ),
    "a table": (
        "a.csv",
        "prompt,response\n",
        {},
        "a.csv does not begin with the names of its columns, and rows of values.",
    ),
    "a mailbox": ("A.MBOX", "From x\n", {}, "A.MBOX is no mailbox, whatever its name says"),
    "a mail": ("a.eml", "Tea.\n", {}, "a.eml is no mail, whatever its name says"),
    "invalid JSON": (
        "a.jsonl",
        '{"text": "one"}\n\n{"text": "' + WRITING + '"\n',
        {},
        "a.jsonl: line 3 is not valid JSON (Expecting ',' delimiter, column",
    ),
    "invalid array": ("a.json", '[\n{"text": "one"},\n}]', {}, "a.json: line 3 is not valid JSON"),
    "empty array": ("a.json", "[]", {}, "a.json is an empty array"),
    "deep nesting": (
        "a.jsonl",
        '{"text": ' + "[" * 200_000,
        {},
        "a.jsonl: the JSON value on line 1 is nested too deeply",
    ),
    "long number": ("a.jsonl", '{"text": ' + "9" * 5000 + "}", {}, "holds too long a number"),
    "a list a line": ("a.jsonl", '{"text": "one"}\n["two"]', {}, "line 2 holds a list, not an"),
    "neither field": (
        "a.jsonl",
        {"title": "t", "body": WRITING},
        {},
        "line 1 has neither 'response' nor 'text' (it has title, body). Name the field",
    ),
    "an object of nothing": ("a.jsonl", {}, {}, "nor 'text' (it is empty)"),
    "a number as text": ("a.jsonl", {"text": 3}, {}, "line 1: 'text' holds a number, not text"),
    "a lone surrogate": (
        "a.jsonl",
        '{"text": "\\ud83d"}',
        {},
        "line 1: 'text' holds a lone surrogate, \\ud83d,",
    ),
    "only empty texts": (
        "a.jsonl",
        '{"text": ""}\n{"text": " "}',
        {},
        "a.jsonl: the text of all 2 items is empty",
    ),
    "missing response": (
        "a.jsonl",
        {"text": WRITING, "id": 1},
        {"response": "note"},
        "line 1 has no field 'note' (it has text, id)",
    ),
    "a list in the prompt": (
        "a.jsonl",
        {"text": "one", "tags": ["a"]},
        {"prompt": "Of {tags}."},
        "'tags' holds a list, not text",
    ),
    "several users": (
        "a.jsonl",
        FIVE,
        {},
        "a.jsonl holds 5 users, such as 'u0', 'u1', 'u2'. Choose one with user or --user",
    ),
    "unknown user": (
        "a.jsonl",
        FIVE,
        {"user": "zz"},
        "a.jsonl has no user 'zz'. It holds 5 users, such as 'u0', 'u1', 'u2'.",
    ),
    "a user twice": ("a.jsonl", FIVE[:1] * 2, {}, "line 2 repeats user 'u0'"),
    "a row of no author": ("a.jsonl", [{"profile": []}], {}, "line 1 names no author"),
    "a row of no profile": (
        "a.jsonl",
        [FIVE[0], {"user_id": "x"}],
        {"user": "x"},
        "line 2: 'profile' must be a list of objects, not nothing",
    ),
    "a string in a profile": (
        "a.jsonl",
        [author([{"text": "one"}, WRITING])],
        {},
        "line 1, profile item 2 holds text, not an object",
    ),
    "a field missing later": (
        "a.jsonl",
        [author([REVIEW, {"overall": 5.0, "description": "d", "reviewText": WRITING}])],
        {},
        "line 1, profile item 2 has no field 'summary' (it has overall, description, reviewText)",
    ),
    "unknown task": (
        "a.jsonl",
        [author([{"body": WRITING}])],
        {},
        "line 1, profile item 1 has neither 'response' nor 'text' (it has body)",
    ),
    "unknown wording": (
        "a.jsonl",
        [author([TITLE_ABSTRACT], asked(WRITING))],
        {},
        "look like LongLaMP abstract generation or LaMP-5 scholarly title, but the queries do not",
    ),
    "user of a plain file": (
        "a.jsonl",
        {"text": "one"},
        {"user": "zz"},
        "a.jsonl is not a per-author file, so there is no user 'zz'",
    ),
    "fields of a text": (
        "a.txt",
        "one",
        {"response": "", "prompt": "y"},
        "Leave out response and prompt",
    ),
    "attribute in the prompt": (
        "a.jsonl",
        {"text": "one"},
        {"prompt": "{text.__class__}"},
        "may hold fields as {name} only",
    ),
    "format in the prompt": ("a.txt", "one", {"prompt": "{text:>9999999}"}, "as {name} only"),
    "conversion in the prompt": ("a.txt", "one", {"prompt": "{text!r}"}, "as {name} only"),
    "a boolean in the prompt": (
        "a.jsonl",
        {"text": "one", "ok": True},
        {"prompt": "Of {ok}."},
        "'ok' holds true or false, not text",
    ),
    "a boolean as id": ("a.jsonl", [{"id": True, "profile": []}], {}, "line 1 names no author"),
    "index in the prompt": ("a.txt", "one", {"prompt": "{text[0]}"}, "as {name} only"),
    "no name in the prompt": ("a.txt", "one", {"prompt": "{}"}, "as {name} only"),
    "open brace": ("a.txt", "one", {"prompt": "Of {text"}, "is not a valid template"),
}


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "content", "options", "message"), ERRORS.values(), ids=ERRORS.keys()
    )
    def test_an_error_says_what_is_wrong_and_repeats_no_text(
        self,
        tmp_path: Path,
        name: str,
        content: bytes | str | Item | list[Item],
        options: dict[str, str],
        message: str,
    ) -> None:
        if isinstance(content, dict):
            content = [content]
        if isinstance(content, list):
            content = "\n".join(json.dumps(row) for row in content)
        path = write(tmp_path, name, content)
        with pytest.raises(HistoryError, match=re.escape(message)) as caught:
            read_history(path, **options)
        assert WRITING not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("gone.jsonl", r"There is no file .*gone\.jsonl\. Check the path"),
            ("x" * 5000, "cannot be read: File name too long"),
        ],
    )
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, name: str, message: str) -> None:
        with pytest.raises(HistoryError, match=message):
            read_history(tmp_path / name)

    @pytest.mark.parametrize(
        ("name", "content"), [("a.txt", "Some prose."), ("a.jsonl", '{"text": "one"}')]
    )
    def test_users_of_another_kind_of_file(self, tmp_path: Path, name: str, content: str) -> None:
        path = write(tmp_path, name, content)
        with pytest.raises(HistoryError, match=rf"{name} is not a per-author file"):
            read_users(path)

    @pytest.mark.parametrize(
        ("queries", "message"),
        [
            ("none", "line 1: 'queries' must be a list of objects, not text"),
            (["x"], "line 1, query 1 holds text, not an object"),
            ([{"input": "i"}], "line 1, query 1 has no field 'output' (it has input)"),
            ([{"input": "i", "output": 1}], "line 1, query 1: 'output' holds a number, not text"),
        ],
    )
    def test_queries(self, tmp_path: Path, queries: object, message: str) -> None:
        path = write_rows(tmp_path, author([{"text": "one"}], queries))
        with pytest.raises(HistoryError, match=re.escape(message)):
            list(read_users(path))


def test_the_page_lists_the_tasks_in_order() -> None:
    page = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (La.*|Long.*?) \| .* \| `(\w+)` \| `(.*)` \|$", page, re.MULTILINE)
    assert rows == [(task.name, task.response, task.prompt) for task in TASKS]


class TestDemo:
    def test_is_forty_texts_and_three_others(self) -> None:
        history = read_history(ROOT / "docs" / "demo" / "history.jsonl")
        held_out = read_history(ROOT / "docs" / "demo" / "held_out.jsonl")
        assert (len(history), len(held_out)) == (40, 3)
        assert not {item.response for item in history} & {item.response for item in held_out}
        for item in history + held_out:
            assert item.request.startswith(("Write a ", "Reply to this mail: "))
            assert 20 <= len(item.response.split()) <= 60
            assert item.response.endswith(",\nMo")


def shared_rows(name: str) -> list[dict[str, Any]]:
    lines = (SHARED / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
class TestRealFiles:
    def test_the_request_of_a_review_equals_the_query_with_its_fields(self, tmp_path: Path) -> None:
        rows = shared_rows("reviews.jsonl")
        queries = [query for row in rows for query in row["queries"]]
        path = write_rows(
            tmp_path, author([{**query, "reviewText": query["output"]} for query in queries])
        )
        assert read_history(path) == [
            HistoryItem(query["output"], query["input"]) for query in queries
        ]

    def test_texts_and_queries_are_kept_to_the_letter(self) -> None:
        fields = {"reviews": "reviewText", "headlines": "title", "novels": "text"}
        for name, field in fields.items():
            rows = shared_rows(f"{name}.jsonl")
            people = read_users(SHARED / f"{name}.jsonl")
            for row, person in zip(rows, people, strict=True):
                assert person.id == row["user_id"]
                assert [item.response for item in person.history] == [
                    normalized(item[field]) for item in row["profile"]
                ]
                assert person.queries == tuple(
                    HistoryItem(query["output"], query["input"]) for query in row["queries"]
                )


class TestLampPairs:
    """The questions and what the authors wrote, in two files, as LaMP publishes them."""

    QUESTIONS = (
        {
            "id": "310",
            "input": "Generate a headline for the following article: A.",
            "profile": [{"id": "3100", "title": "Old", "text": "Older."}],
        },
        {
            "id": "311",
            "input": "Generate a headline for the following article: B.",
            "profile": [{"id": "3110", "title": "New", "text": "Newer."}],
        },
    )
    GOLDS: tuple[Item, ...] = ({"id": "311", "output": "Out B"}, {"id": "310", "output": "Out A"})

    def pair(self, folder: Path, golds: Sequence[Item], indent: int | None = None) -> Path:
        write(
            folder,
            "dev_outputs.json",
            json.dumps({"task": "LaMP_4", "golds": golds}, indent=indent),
        )
        return write(folder, "dev_questions.json", json.dumps(self.QUESTIONS))

    def test_each_question_is_a_user_with_one_query(self, tmp_path: Path) -> None:
        users = list(read_users(self.pair(tmp_path, self.GOLDS, indent=2)))
        assert [user.queries for user in users] == [
            (HistoryItem("Out A", "Generate a headline for the following article: A."),),
            (HistoryItem("Out B", "Generate a headline for the following article: B."),),
        ]
        assert [user.history[0].response for user in users] == ["Old", "New"]

    def test_a_question_without_an_output_has_no_query(self, tmp_path: Path) -> None:
        path = self.pair(tmp_path, self.GOLDS[:1])
        assert [len(user.queries) for user in read_users(path)] == [0, 1]
        (tmp_path / "dev_outputs.json").unlink()
        assert [user.queries for user in read_users(path)] == [(), ()]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "dev_outputs.json: line 1 is not valid JSON"),
            ("[]", "dev_outputs.json holds a list, not an object"),
            ("{}", "'golds' must be a list of objects, not nothing"),
            ('{"golds": [{"id": "310"}]}', "dev_outputs.json, output 1 has no field 'output'"),
            ('{"golds": [{"id": "310", "output": 3}]}', "'output' holds a number, not text"),
        ],
    )
    def test_damaged_outputs_are_an_error(self, tmp_path: Path, content: str, message: str) -> None:
        path = self.pair(tmp_path, ())
        write(tmp_path, "dev_outputs.json", content)
        with pytest.raises(HistoryError, match=re.escape(message)):
            list(read_users(path))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", json.dumps([author([{"text": "One."}])]), True),
        ("a.jsonl", '{"text": "One."}', False),
        ("a.txt", "One.", False),
    ],
)
def test_has_users_recognizes_per_author_files(
    tmp_path: Path, name: str, content: str, expected: bool
) -> None:
    assert has_users(write(tmp_path, name, content)) is expected
