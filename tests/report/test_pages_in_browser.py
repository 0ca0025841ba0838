"""The pages of `explain` and `show` in Chromium: what is seen, pointed at, sorted and searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steerx_edge.explaining.held import Held
from steerx_edge.profile import Profile, Word
from steerx_edge.report.answer_page import answer_page
from steerx_edge.report.profile_facts import profile_facts
from steerx_edge.report.profile_page import profile_page
from steerx_edge.report.texts_facts import texts_facts
from steerx_edge.report.texts_page import texts_page
from tests.support.browser import Browser, installed
from tests.support.entries import a_full_entry
from tests.support.explained import HOSTILE, a_text, an_answer, many_texts

WIDTHS = (400, 900, 1600)
MAPPED = ("Mo", " writes", ",", "\n", "honest", "ly")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = installed()
    if path is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    with Browser(path) as one:
        yield one


def mapped(**fields: Any) -> dict[str, Any]:
    """Facts of three texts."""
    texts = [
        a_text(MAPPED, [5, -1, place / 8, 0, 1.25, 0.5], place, gain=gain, was_read=read, **fields)
        for place, gain, read in ((0, 0.5, True), (1, 2.0, True), (2, -0.25, False))
    ]
    texts.append(a_text(["The", " needle"], [0, 0.125], 3, gain=None))
    word = Word("honestly", 4.82, 3.1, 6.67, 14, 9)
    return texts_facts("me.json", a_full_entry(words=(word,)), texts)


def show(browser: Browser, folder: Path, text: str, **how: Any) -> None:
    path = folder / "page.html"
    path.write_text(text, "utf-8")
    browser.open(path, **how)


def numbers(browser: Browser) -> list[int]:
    """Of the texts that are shown, in order."""
    shown = "[...document.querySelectorAll('article:not([hidden]) h2')]"
    found: list[int] = browser.value(f"{shown}.map((e) => Number(e.textContent.split(' ')[1]))")
    return found


def details(browser: Browser) -> str:
    text: str = browser.value("document.getElementById('details').innerText")
    return text


def choose(browser: Browser, name: str, option: str) -> None:
    browser.value(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = '{option}';"
        "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def pages(folder: Path) -> dict[str, str]:
    """One of each kind, with hostile texts wherever there may be any."""
    profile = Profile((a_full_entry(words=(Word(HOSTILE, 2.0, 1.0, 3.0, 2, 2),)),))
    facts = mapped()
    facts["texts"].append({**facts["texts"][0], "number": 5, "request": HOSTILE})
    facts["texts"][-1]["words"] = [
        {**facts["texts"][0]["words"][0], "text": HOSTILE, "word": HOSTILE}
    ]
    answer = an_answer()
    answer["steered"][0]["text"] = answer["unsteered"][0]["text"] = answer["prompt"] = HOSTILE
    answer["steered"][1]["sources"][0]["texts"][0]["before"] = HOSTILE
    return {
        "profile": profile_page(profile_facts(str(folder / "me.json"), profile)),
        "texts": texts_page(facts),
        "answer": answer_page(answer),
    }


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_their_window_and_show_only_text(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    for text in pages(tmp_path).values():
        show(browser, tmp_path, text, width=width, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.eventually(f"document.body.innerText.includes({json.dumps(HOSTILE)})")
        assert browser.value("document.title") != "stolen"
        assert browser.value("document.querySelectorAll('img, script[src]').length") == 0
        rgb = browser.value("getComputedStyle(document.body).backgroundColor")
        assert (rgb == "rgb(22, 24, 28)") == dark


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "columns"), [(400, 1), (900, 2), (1600, 3)])
def test_what_calibration_tried_is_drawn(
    browser: Browser, tmp_path: Path, width: int, columns: int, dark: bool
) -> None:
    facts = profile_facts("me.json", Profile((a_full_entry(),)))
    show(browser, tmp_path, profile_page(facts), width=width, dark=dark)
    boxes = browser.value(
        "[...document.querySelectorAll('figure svg')].map((e) => e.getBoundingClientRect())"
        ".map((r) => [r.left, r.right, r.width / 400])"
    )
    assert len(boxes) == 5
    assert len({left for left, _, _ in boxes}) == columns
    assert all(right <= width for _, right, _ in boxes)
    assert all(12 * scale > 10 for _, _, scale in boxes)  # pixels of its text
    styles = browser.value(
        "['.own.line', '.generic.line', 'text'].map((c) => getComputedStyle("
        "document.querySelector(`figure ${c}`))).map((s) => [s.stroke, s.strokeDasharray, s.fill])"
    )
    gain, loss, text = styles
    assert gain[0] != loss[0]
    assert (gain[1], loss[1]) == ("none", "5px, 4px")  # they differ without color, too
    assert text[2] == ("rgb(230, 230, 230)" if dark else "rgb(27, 27, 27)")
    marks = "document.querySelectorAll('figure:first-of-type circle > title')"
    assert browser.value(f"{marks}.length") == 2 * 6
    browser.value("document.querySelector('summary').click()")
    assert browser.value("document.querySelectorAll('details table').length") == 5
    assert browser.value("document.documentElement.scrollWidth") <= width


def test_pointing_at_a_word_shows_its_figures(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(mapped()), width=1600)
    assert "No word is chosen" in details(browser)
    browser.hover("article:last-child .w", 3)  # text 1, `honestly`
    found = details(browser)
    assert found.startswith("honestly\n")
    assert "Effect +1.75 nats." in found
    assert "word\t−10.00\t−8.25\t+1.75" in found
    assert "‹ly›\t−5.00\t−4.50\t+0.50" in found
    assert "+4.82 nats a text, 95% interval +3.10 to +6.67; 14 times in 9 texts." in found
    assert "‹honest› in the memory, weight 0.75 (level shared)." in found
    browser.hover("article:last-child .w", 0)
    assert "Not one of the profile's words." in details(browser)


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("request", "In the memory with weight 0: the word is in the request."),
        ("single", "Not in the memory: the word occurs in one text only (level shared)."),
        ("absent", "Not in the memory: its row was removed, or the text has changed."),
    ],
)
def test_why_a_word_is_not_in_the_memory(
    browser: Browser, tmp_path: Path, fate: str, sentence: str
) -> None:
    held = mapped()["texts"][0]
    for word in held["words"]:
        for token in word["tokens"]:
            token |= {"fate": fate, "weight": 0.0}
    show(browser, tmp_path, texts_page({**mapped(), "texts": [held]}))
    browser.hover("article .w")
    assert sentence in details(browser)


def test_a_text_that_was_not_learned_from_says_so(browser: Browser, tmp_path: Path) -> None:
    import numpy as np

    absent = Held(np.full(7, -1), np.zeros(7, np.float32), ("absent",) * 7)
    text = a_text(MAPPED, [0] * 6, was_read=False, held=absent)
    show(browser, tmp_path, texts_page(texts_facts("me.json", a_full_entry(), [text])))
    browser.hover("article .w")
    assert "Not in the memory: the profile was not learned from this text." in details(browser)


def test_the_keyboard_reaches_every_word(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(mapped()))
    browser.value("document.getElementById('sort').focus()")
    focused = "document.activeElement.textContent"
    browser.press("Tab")
    assert browser.value(focused) == "The"  # of text 4, which is the latest
    assert details(browser).startswith("The\n")
    assert browser.value("document.activeElement.getAttribute('aria-describedby')") == "details"
    walk = [
        ("ArrowRight", "needle"),
        ("ArrowRight", "Mo"),  # of the next text
        ("End", "honestly"),
        ("ArrowLeft", ","),
        ("Home", "Mo"),
        ("ArrowUp", "The"),
        ("ArrowUp", "The"),  # there is none above
        ("ArrowDown", "Mo"),
        ("ArrowLeft", "needle"),
        ("Home", "The"),
    ]
    for key, word in walk:
        browser.press(key)
        assert browser.value(focused) == word
    browser.press("Tab")  # each text is one stop
    assert browser.value(focused) == "Mo"


def test_texts_are_sorted(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(mapped()))
    assert numbers(browser) == [4, 3, 2, 1]
    for order, expected in (
        ("earliest", [1, 2, 3, 4]),
        ("gain", [2, 1, 3, 4]),
        ("effect", [3, 2, 1, 4]),
        ("latest", [4, 3, 2, 1]),
    ):
        choose(browser, "sort", order)
        assert numbers(browser) == expected


def test_texts_are_filtered_and_searched(browser: Browser, tmp_path: Path) -> None:
    facts = mapped()
    facts["texts"][1]["memory"]["request"] = 1
    show(browser, tmp_path, texts_page(facts))
    for name, expected in (
        ("read", [4, 2, 1]),
        ("unread", [3]),
        ("worse", [3]),
        ("out", [2]),
        ("all", [4, 3, 2, 1]),
    ):
        choose(browser, "filter", name)
        assert numbers(browser) == expected
        shown = browser.value("document.getElementById('shown').textContent")
        assert shown == f"{len(expected)} of 4 texts"
    browser.value("document.getElementById('search').focus()")
    browser.enter("NEEDLE")
    assert numbers(browser) == [4]
    assert browser.value("document.querySelectorAll('.hit').length") == 1


def test_the_keyboard_passes_over_hidden_texts(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(mapped()))
    choose(browser, "filter", "read")  # 4, 2 and 1
    browser.value("document.querySelector('.words .w').focus()")
    heading = "document.activeElement.closest('article').querySelector('h2').textContent"
    assert browser.value(heading) == "Text 4"
    browser.press("ArrowDown")
    assert browser.value(heading) == "Text 2"


def test_words_are_shaded_by_their_effect(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(mapped()))
    words = "[...document.querySelectorAll('article:last-child .w')]"
    assert browser.value(f"{words}.map((e) => e.className.trim())") == ["w p5", "w n3", "w", "w p3"]
    said = browser.value("document.querySelector('article:last-child .said').textContent")
    assert said == "Words with the highest effects: Mo +5.0, honestly +1.8."


def test_an_answer_shows_where_a_token_comes_from(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, answer_page(an_answer()), width=1600)
    spans = "[...document.querySelectorAll('.words .w')]"
    assert browser.value(f"{spans}.map((e) => e.className)") == [
        "w model",
        "w memory",
        "w logit_bias",
        "w directions",
        "w model",
        "w model",
        "w memory",
    ]
    assert browser.value("document.querySelector('.words').textContent") == "so then,🙂⏎\n‹end›"
    browser.hover(".words .w", 1)
    found = details(browser)
    for part in ("Comes from: memory.", "model\t−9.00", "memory\t+6.00", "log p\t−1.50"):
        assert part in found
    assert "75 % text 5: right then,\nthe chair" in found
    assert "25 % of a text that is not in the history" in found
    browser.value("document.querySelector('.words .w').focus()")
    browser.press("End")
    assert details(browser).startswith("‹end›")


def test_five_hundred_texts_are_all_there(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, texts_page(many_texts(500)))
    assert len(numbers(browser)) == 500
    assert browser.value("document.querySelectorAll('.w').length") == 30_000 + 11  # the legend's
    browser.value("document.getElementById('search').focus()")
    browser.enter("needle")
    assert len(numbers(browser)) == 50
