"""Pages and files of the documentation that are made by programs."""

from __future__ import annotations

import json
import mailbox
from contextlib import closing
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import cast

from docs.tools.generate_cli import PAGE, cli_page
from docs.tools.make_mailbox import DEMO, MAILBOX, N_TEXTS
from steerx_edge.apps.cli import COMMANDS
from steerx_edge.apps.cli.manual import examples


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8") == cli_page(), "run `make docs`"


def test_each_command_has_examples_of_its_own() -> None:
    for name in COMMANDS:
        lines = examples(name).splitlines()[3:]
        assert lines
        assert all(line.startswith(("# ", f"steerx-edge {name} ")) for line in lines)


def test_the_mailbox_holds_the_texts_of_the_demo() -> None:
    """As Python's own reader sees it, without quotes and signatures."""
    parse = BytesParser(policy=policy.default).parse
    bodies = []
    with closing(mailbox.mbox(MAILBOX, factory=cast("type[mailbox.mboxMessage]", parse))) as mails:
        messages = list(mails)
    for message in messages:
        lines = cast("EmailMessage", message).get_content().split("\n-- \n")[0].splitlines()
        own = [line for line in lines if not line.startswith((">", "On ")) or " wrote:" in line]
        own = [line for line in own if not line.endswith(" wrote:")]
        bodies.append("\n".join(own).strip())
    history = (DEMO / "history.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["response"] for line in history]
    assert bodies[:N_TEXTS] == texts[:N_TEXTS]
    assert bodies[N_TEXTS] == texts[2]
