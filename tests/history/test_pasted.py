"""Code and logs are told from prose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerx_edge.history.pasted import is_code, without_code

ROOT = Path(__file__).resolve().parents[2]

CODE = {
    "Python": "def tea(cups):\n    # hot\n    for cup in cups:\n        cup.fill()\n    return 0",
    "JavaScript": "const tea = pot.pour();\nconsole.log(tea);",
    "C": '#include <stdio.h>\nint main(void) {\n    puts("tea");\n}',
    "SQL": "SELECT name FROM teas\nWHERE hot = 1\nORDER BY name;",
    "shell": "$ make tea\nmake: *** No rule to make target 'tea'.  Stop.",
    "JSON": '{\n  "tea": "green",\n  "cups": 2\n}',
    "HTML": '<div class="tea">\n  <p>Hot</p>\n</div>',
    "CSS": ".tea {\n  color: green;\n  margin: 0 auto;\n}",
    "traceback": 'Traceback (most recent call last):\n  File "tea.py", line 3, in <module>\n'
    "    pour()\nValueError: the pot is empty",
    "Java": "java.lang.NullPointerException: no pot\n\tat org.tea.Pot.pour(Pot.java:12)\n"
    "\tat org.tea.Main.main(Main.java:3)",
    "log": "2026-01-05 10:30:00,123 INFO pot: heating\n2026-01-05 10:31:00,456 ERROR pot: hot",
    "syslog": "Jan  5 10:30:00 host tea[42]: heating\nJan  5 10:31:00 host tea[42]: done",
    "compiler": "tea.c:3:5: error: expected ';'\n    3 |     pour()\n      |           ^",
    "diff": "diff --git a/tea b/tea\n--- a/tea\n+++ b/tea\n@@ -1 +1 @@\n-cold\n+hot",
    "one line": "Error: TypeError: cannot read properties of undefined",
}
PROSE = {
    "list": "- buy tea (green)\n- call Ana; she knows\n- return the books",
    "times": "10:30 tea with Ana\n12:00 lunch\n15:15 the dentist (again)",
    "smileys": "lol :) <3\n;) see you\n:-(",
    "one word a line": "return\nbreak\nthen\ndone",
    "colons": "Where: at home\nWhen: 10:30\nBring: cake, plates",
    "in brackets": "(I know.)\n[Laughs]\n{sigh}",
    "numbers": "2 eggs\n100 g flour\n1/2 l milk",
    "imports": "We import tea from Japan; it is good.\nImport duties rise.",
    "quoted": '"Tea," she said.\n"Coffee," he said.',
    "error": "The error was mine: I forgot the tea; sorry.",
    "what is needed": "for dinner we need:\nif you have it: salt\nwith love:",
    "greeting": "Hi Ana,\n\nclass is at ten.\nfor me it is too early!",
    "Markdown": "# Tea\n\n- green\n- black\n\n[a link](http://example.org/tea)",
}


@pytest.mark.parametrize("text", CODE.values(), ids=CODE.keys())
def test_code_and_logs(text: str) -> None:
    assert is_code(text)


@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE.keys())
def test_prose(text: str) -> None:
    assert not is_code(text)
    assert without_code(text) == (text, [])


def test_no_mail_of_the_demo_is_code() -> None:
    lines = (ROOT / "docs/demo/history.jsonl").read_text().splitlines()
    assert not any(without_code(json.loads(line)["response"])[1] for line in lines)


def test_pasted_paragraphs_are_cut() -> None:
    text = f"It breaks again:\n\n{CODE['traceback']}\n\nAny idea?"
    assert without_code(text) == ("It breaks again:\n\nAny idea?", [CODE["traceback"]])


@pytest.mark.parametrize("code", [CODE["traceback"], CODE["log"] + "\n" + CODE["syslog"]])
def test_three_pasted_lines_in_a_paragraph_are_cut(code: str) -> None:
    before, after = "It breaks again, and says:", "That is all of it.\nI have no idea.\nDo you?"
    assert without_code(f"{before}\n{code}\n{after}") == (f"{before}\n{after}", [code])


def test_two_pasted_lines_in_a_paragraph_are_not() -> None:
    text = f"It says:\n{CODE['log']}\nThat is all.\nI have no idea.\nDo you?"
    assert without_code(text) == (text, [])


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_what_stands_between_fences_is_cut(fence: str) -> None:
    text = f"Try this:\n{fence}text\nall of\n\nit\n{fence}\nand tell me."
    own, cut = without_code(text)
    assert own.split() == ["Try", "this:", "and", "tell", "me."]
    assert cut == [f"{fence}text\nall of\n\nit\n{fence}"]


def test_an_open_fence_cuts_nothing() -> None:
    text = "A ``` is three marks.\n```\nand no end"
    assert without_code(text) == (text, [])
