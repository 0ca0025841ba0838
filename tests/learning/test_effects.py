"""Causal effects: both arms against the NumPy reference, anchors, and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.effects import (
    Effects,
    anchors,
    bootstrap_mean_interval,
    effects_of,
    read_control,
    read_treatment,
    word_effects,
)
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import ScoreResult
from tests.support.histories import reference_arm

ITEM = HistoryItem("She peeped into the book... twice!", "What did she do?")
IN_CONTEXT = [
    HistoryItem("The rabbit ran close by her.", "Who ran?"),
    HistoryItem("Down the hole it went, and she after it!"),
    HistoryItem("A daisy-chain.", "What did she make?"),
]
LAYERS = (0, 1, 3)


def both_arms(
    engine: Engine, item: HistoryItem, others: Sequence[HistoryItem]
) -> tuple[ScoreResult, ScoreResult]:
    """With others in the context, and without."""
    (treatment,) = read_treatment(engine, [item], others, LAYERS)
    (control,) = read_control(engine, [item], LAYERS)
    return treatment, control


def ablated(engine: Engine, item: HistoryItem, others: Sequence[HistoryItem]) -> Effects:
    return effects_of(engine, item, *both_arms(engine, item, others))


def made_effects(pieces: Sequence[bytes], nats: Any = None) -> Effects:
    """Token t has 2**t nats unless told otherwise, so that a sum says which tokens are in it."""
    values = [2.0**t for t in range(len(pieces))] if nats is None else nats
    return Effects(list(range(len(pieces))), list(pieces), np.array(values, dtype=np.float32))


def text_effects(text: str, nats: Any) -> Effects:
    """One token a word."""
    return made_effects([f" {word}".encode() for word in text.split()], nats)


class TestArms:
    @pytest.fixture(params=["plain", "chat template"])
    def engine(
        self, request: pytest.FixtureRequest, tiny_engine: Engine, tiny_chat_engine: Engine
    ) -> Engine:
        return {"plain": tiny_engine, "chat template": tiny_chat_engine}[request.param]

    def test_both_arms_are_those_of_the_reference(
        self, engine: Engine, tiny_f32: TinyModel
    ) -> None:
        item = ITEM
        arms = both_arms(engine, item, IN_CONTEXT)
        effects = effects_of(engine, item, *arms)

        response = engine.tokenize(item.response)
        with_others = engine.prompt(messages_for(item.request, history=IN_CONTEXT))
        without = engine.prompt(messages_for(item.request))
        assert len(with_others) > len(without) + 20
        treated, treatment, _ = reference_arm(tiny_f32, with_others, response)
        untreated, control, _ = reference_arm(tiny_f32, without, response)

        assert effects.tokens == response
        np.testing.assert_allclose(effects.nats, treated - untreated, atol=2e-4)
        assert np.abs(effects.nats).max() > 0.5  # or the comparison would be void
        for arm, expected in zip(arms, (treatment, control), strict=True):
            assert arm.captured.shape == (len(LAYERS), len(response) + 1, tiny_f32.n_embd)
            np.testing.assert_allclose(arm.captured, expected[list(LAYERS)], atol=2e-4)

    def test_without_in_context_texts_no_token_has_an_effect(self, engine: Engine) -> None:
        effects = ablated(engine, ITEM, [])
        assert len(effects.nats) > 5
        np.testing.assert_allclose(effects.nats, 0, atol=1e-5)

    def test_items_read_together_are_read_as_alone(self, tiny_engine: Engine) -> None:
        engine = tiny_engine
        items = [ITEM, HistoryItem("Off it went!", "Where?"), HistoryItem("It was dark. So dark.")]
        treatments = read_treatment(engine, items, IN_CONTEXT, LAYERS)
        controls = read_control(engine, items, LAYERS)
        for item, *together in zip(items, treatments, controls, strict=True):
            for arm, alone in zip(together, both_arms(engine, item, IN_CONTEXT), strict=True):
                np.testing.assert_allclose(arm.scored, alone.scored, atol=1e-4)
                np.testing.assert_allclose(arm.captured, alone.captured, atol=1e-4)

    def test_texts_that_do_not_fit_the_context_are_an_error(self, tiny_engine: Engine) -> None:
        long = HistoryItem("so very tired " * 200)
        with pytest.raises(ModelError, match="does not fit the analysis context of 512"):
            read_treatment(tiny_engine, [ITEM], [long], LAYERS)

    def test_effects_of_words_add_up_to_those_of_tokens(self, tiny_engine: Engine) -> None:
        text = "Café ’tis “so” — it’s  well-known,\n\n🙂🙂 isn't it?! Not 3.14... naïve\tend"
        effects = ablated(tiny_engine, HistoryItem(text), IN_CONTEXT)
        # Words whose sum is not above 0 are left out, so the sign is taken away.
        effects = Effects(effects.tokens, effects.pieces, np.abs(effects.nats) + 1)
        written = [bool(piece.strip()) for piece in effects.pieces]
        assert 0 < sum(written) < len(written)
        in_words = sum(word.effect for word in word_effects([effects], limit=10_000))
        assert in_words == pytest.approx(effects.nats[written].sum(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize(
    ("nats", "options", "expected"),
    [
        pytest.param([0.5, 2, 1, 3, 1.5], {}, [1, 3, 4], id="at the threshold is not above it"),
        pytest.param([2, 3, 4, 5], {"threshold": 3.5}, [1, 2, 3], id="filled up by at_least"),
        pytest.param([2, 3, 4, 5], {"threshold": 3.5, "at_least": 1}, [2, 3], id="more than asked"),
        pytest.param([0.1, -4, 0.3, 0.2, -1], {}, [0, 2, 3], id="none above"),
        pytest.param([0, 0.5, 0, 0.5, 0], {}, [0, 1, 3], id="ties after the highest"),
        pytest.param([0.1, 0.2], {}, [0, 1], id="fewer tokens than at_least"),
        pytest.param([-1, -2], {"threshold": -1.5}, [0, 1], id="negative threshold"),
        pytest.param([], {}, [], id="no tokens"),
    ],
)
def test_anchors(nats: list[float], options: dict[str, Any], expected: list[int]) -> None:
    given = np.array(nats, dtype=np.float32)
    selected = anchors(given, **options)
    assert selected.dtype == np.bool_
    assert selected.shape == given.shape
    assert np.flatnonzero(selected).tolist() == expected
    np.testing.assert_array_equal(given, np.array(nats, dtype=np.float32))


class TestWords:
    @pytest.mark.parametrize(
        ("pieces", "expected"),
        [
            pytest.param(["un", "believ", "able"], {"unbelievable": 7}, id="sub-words"),
            pytest.param([" so", " what", "ever"], {"so": 1, "whatever": 6}, id="space before"),
            pytest.param(["so ", "what\n", "ever"], {"so": 1, "what": 2, "ever": 4}, id="after"),
            pytest.param(
                ["Wow", "!", "!!", " ok"], {"Wow": 1, "!!!": 6, "ok": 8}, id="punctuation"
            ),
            pytest.param(
                ["a", ",", " ", "...", "b"], {"a": 1, ",": 2, "...": 8, "b": 16}, id="..."
            ),
            pytest.param(["don", "’", "t"], {"don’t": 7}, id="curly apostrophe"),
            pytest.param([" well", "-", "known"], {"well-known": 7}, id="hyphen"),
            pytest.param(["dogs", "'", " ok"], {"dogs": 1, "'": 2, "ok": 4}, id="ends in '"),
            pytest.param(['"', "Hi", '"'], {'"': 5, "Hi": 2}, id="the same sign twice"),
            pytest.param(["a_b", "c"], {"a_bc": 3}, id="underscore"),
            pytest.param(["a", " ", "\n", " \t", "b"], {"a": 1, "b": 16}, id="white space alone"),
            pytest.param(["of the", " end"], {"the": 1, "end": 2}, id="two words in a token"),
            pytest.param(
                ["ééé", " x", " y"], {"ééé": 1, "x": 2, "y": 4}, id="bytes not characters"
            ),
            pytest.param(["İ", " i"], {"İ": 1, "i": 2}, id="as written"),
            pytest.param(["हि", "न्", "दी", " मैं"], {"हिन्दी": 7, "मैं": 8}, id="marks"),
            pytest.param(["می", "\u200c", "خواهم"], {"می\u200cخواهم": 7}, id="a joiner"),
            pytest.param(["Do", "\u00ad", "nau"], {"Donau": 7}, id="a soft hyphen"),
            pytest.param(["ラー", "メン", "を"], {"ラーメン": 3, "を": 4}, id="katakana"),
            pytest.param(
                ["🏴", "\U000e0067\U000e0062\U000e007f"],
                {"🏴\U000e0067\U000e0062\U000e007f": 3},
                id="a flag",
            ),
        ],
    )
    def test_a_word_has_the_effects_of_its_tokens(
        self, pieces: list[str], expected: dict[str, float]
    ) -> None:
        words = word_effects([made_effects([piece.encode() for piece in pieces])])
        assert {word.word: word.effect for word in words} == expected

    @pytest.mark.parametrize(
        ("pieces", "expected"),
        [
            pytest.param(
                [b" caf", b"\xc3", b"\xa9", b" x"], {"café": 7, "x": 8}, id="two bytes, two tokens"
            ),
            pytest.param(
                [b"ok ", b"\xf0\x9f", b"\x99\x82", b"!"], {"ok": 1, "🙂!": 14}, id="four bytes"
            ),
            pytest.param([b"x \xc3", b"\xa9", b" y"], {"x": 0, "é": 3, "y": 4}, id="begins before"),
            pytest.param(
                [b"good", b" day", b"\xe2\x80"], {"good": 1, "day": 2}, id="cut at the end"
            ),
            pytest.param(
                [b"a", b"\xff", b"\xff", b"\xfe", b" b", b" c"],
                {"a": 1, "b": 16, "c": 32},
                id="invalid inside",
            ),
        ],
    )
    def test_a_character_may_be_split_between_tokens(
        self, pieces: list[bytes], expected: dict[str, float]
    ) -> None:
        words = word_effects([made_effects(pieces)])
        # A word without a token of its own has no effect, and so is not listed.
        assert {word.word: word.effect for word in words} == {
            word: effect for word, effect in expected.items() if effect
        }

    @pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000"])
    def test_white_space_beyond_ascii_belongs_to_no_word(self, space: str) -> None:
        words = word_effects([made_effects([b"Salut", space.encode(), b"!"])])
        assert {word.word: word.effect for word in words} == {"Salut": 1, "!": 4}

    @pytest.mark.parametrize("piece", ["\x00", "\x1b", "\x7f", "\x9c", "=" * 61, "a" * 61])
    def test_what_a_profile_cannot_hold_is_not_a_word(self, piece: str) -> None:
        words = word_effects([made_effects([b"Hi ", piece.encode(), b" you"])])
        assert {word.word for word in words} == {"Hi", "you"}

    @pytest.mark.parametrize("piece", ["=" * 60, "a" * 60])
    def test_a_word_may_be_60_characters_long(self, piece: str) -> None:
        assert {word.word for word in word_effects([made_effects([piece.encode()])])} == {piece}

    def test_words_are_ordered_by_their_sum_over_items_then_by_the_alphabet(self) -> None:
        items = [
            text_effects("a b c", [1, 4, 2.0]),
            text_effects("c b a", [1.5, -2, 1]),
            text_effects("a c aa", [1, 4, 1]),
            text_effects("aa", [1]),
        ]
        words = word_effects(items)  # a: 3, b: 2, c: 7.5, aa: 2
        assert [word.word for word in words] == ["c", "a", "aa", "b"]
        assert [word.effect for word in words] == pytest.approx([7.5 / 4, 3 / 4, 1 / 2, 1 / 2])

    def test_words_differ_by_case(self) -> None:
        words = word_effects([text_effects("The the THE the", [1, 2, 8, 4])])
        assert {word.word: (word.effect, word.count) for word in words} == {
            "The": (1, 1),
            "the": (6, 2),
            "THE": (8, 1),
        }

    def test_words_of_only_one_item_are_left_out(self) -> None:
        items = [text_effects("both one", [1, 50]), text_effects("both two", [1, 50])]
        assert [word.word for word in word_effects(items)] == ["both"]

    def test_words_of_only_one_item_are_kept_if_there_are_no_others(self) -> None:
        items = [text_effects("one", [1]), text_effects("two", [2])]
        assert [(word.word, word.effect) for word in word_effects(items)] == [
            ("two", 1),
            ("one", 0.5),
        ]

    def test_a_word_counts_its_occurrences_and_its_items(self) -> None:
        items = [
            text_effects("so so it so", [1, 1, 1, 1]),
            text_effects("so", [1]),
            text_effects("it", [1]),
        ]
        words = {word.word: word for word in word_effects(items)}
        assert {name: (word.count, word.items) for name, word in words.items()} == {
            "so": (4, 2),
            "it": (2, 2),
        }
        assert [words["so"].effect, words["it"].effect] == pytest.approx([4 / 3, 2 / 3])

    @pytest.mark.parametrize("nats", [[-1.0, -2.0], [0.0, 0.0]])
    def test_words_without_a_positive_sum_are_left_out(self, nats: list[float]) -> None:
        assert word_effects([text_effects("a b", nats)]) == ()

    @pytest.mark.parametrize("items", [[], [made_effects([])], [made_effects([b" ", b"\n"])]])
    def test_without_words_there_are_no_effects(self, items: list[Effects]) -> None:
        assert word_effects(items) == ()

    def test_the_limit_keeps_the_largest(self) -> None:
        text = " ".join(f"w{n}" for n in range(40))
        items = [text_effects(text, [float(n + 1) for n in range(40)])] * 2
        largest_first = [f"w{n}" for n in reversed(range(40))]
        assert [word.word for word in word_effects(items, limit=5)] == largest_first[:5]
        assert [word.word for word in word_effects(items)] == largest_first[:30]
        assert [word.word for word in word_effects(items, limit=99)] == largest_first

    def test_the_order_of_the_texts_does_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        items = [text_effects("a b c", rng.normal(1, 2, 3)) for _ in range(9)]
        assert word_effects(items[::-1]) == word_effects(items)

    def test_the_interval_is_of_the_words_own_values(self) -> None:
        items = [text_effects("same some", [2.0, nats]) for nats in (0, 1, 2, 3)]
        same, some = word_effects(items)
        assert (same.word, same.low, same.effect, same.high) == ("same", 2, 2, 2)
        (low,), (high,) = bootstrap_mean_interval(np.array([[0.0], [1], [2], [3]]))
        assert (some.word, some.low, some.effect, some.high) == ("some", low, 1.5, high)


class TestBootstrap:
    def test_the_interval_of_two_values_reaches_both(self) -> None:
        # Of two draws both are 0 in a quarter of the cases, and both 1 in a quarter.
        low, high = bootstrap_mean_interval(np.array([[0.0], [1.0]]))
        assert (low.tolist(), high.tolist()) == ([0.0], [1.0])

    def test_many_values_give_the_normal_interval(self) -> None:
        values = np.random.default_rng(0).normal(5, 2, size=(400, 1))
        low, high = bootstrap_mean_interval(values)
        half = 1.96 * values.std() / np.sqrt(400)
        np.testing.assert_allclose(low, values.mean() - half, atol=0.15 * half)
        np.testing.assert_allclose(high, values.mean() + half, atol=0.15 * half)

    def test_columns_are_independent(self) -> None:
        values = np.random.default_rng(0).normal(size=(7, 3))
        low, high = bootstrap_mean_interval(values)
        for column in range(3):
            alone = bootstrap_mean_interval(values[:, [column]])
            np.testing.assert_allclose([low[[column]], high[[column]]], alone, rtol=1e-12)


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    words = word_effects([made_effects(["我今".encode(), "天去了".encode(), b" ok"])])
    assert {word.word for word in words} <= {*"我今天去了", "ok"}


def test_joined_emoji_are_words() -> None:
    words = word_effects([made_effects([b"hi ", "👩‍💻".encode()])])
    assert {word.word for word in words} == {"hi", "👩‍💻"}
