"""Texts added to a profile: as if learned with the others, and only new ones are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.errors import HistoryError, ProfileError
from steerx_edge.forgetting import forget_texts
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import Further, read_further
from steerx_edge.learning.adding import learn_more
from steerx_edge.learning.calibration import Calibration, HeldOutScores, Setting
from steerx_edge.learning.effects import words_of_tokens
from steerx_edge.learning.learn import learn
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Edit, Gain, Profile
from steerx_edge.profile.editing import with_edits
from steerx_edge.steering.memory import Level
from tests.support.engines import InterruptedEngine
from tests.support.histories import TEXTS, without_time

FIRST, MORE = TEXTS[:4], TEXTS[4:]
GAIN = Gain(0.2, 0.1, 0.3, 4)
SETTINGS = Settings(sample=4, layers=(2,))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one text, the first texts as the sample, and no calibration."""
    for module in ("learned", "adding"):
        monkeypatch.setattr(f"steerx_edge.learning.{module}.CHUNK", 1)
    for module in ("learn", "adding"):
        monkeypatch.setattr(
            f"steerx_edge.learning.{module}.sampled", lambda n, most: list(range(min(n, most)))
        )
    monkeypatch.setattr(
        "steerx_edge.learning.learned.calibrate",
        lambda *_, **__: Calibration(Setting(((0, 0.1),), 0.5, 0.3), GAIN),
    )
    monkeypatch.setattr(
        "steerx_edge.learning.learned.recalibrate", lambda _, calibration: calibration
    )


@pytest.fixture
def profile(tiny_engine: Engine) -> Profile:
    return learn(tiny_engine, FIRST, SETTINGS)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[str]]]:
    """What is read, and with which others."""
    calls: list[tuple[list[str], list[str]]] = []

    def recorded(
        engine: Engine, items: Sequence[HistoryItem], others: Sequence[HistoryItem], *rest: Any
    ) -> list[Further]:
        calls.append(([item.response for item in items], [item.response for item in others]))
        return read_further(engine, items, others, *rest)

    monkeypatch.setattr("steerx_edge.learning.totals.read_further", recorded)
    return calls


@pytest.mark.parametrize(
    ("level", "steps"), [("causal", [TEXTS[:5], TEXTS]), ("all", [TEXTS])], ids=["twice", "once"]
)
def test_texts_added_later_give_what_learning_all_at_once_gives(
    tiny_engine: Engine, level: Level, steps: Sequence[Sequence[HistoryItem]]
) -> None:
    settings = dataclasses.replace(SETTINGS, memory=level)
    whole = without_time(learn(tiny_engine, TEXTS, settings))
    added = learn(tiny_engine, FIRST, settings)
    for history in steps:
        added = learn_more(tiny_engine, added, history)
    entry = without_time(added)
    assert entry.memory is not None
    assert entry.memory == whole.memory
    assert entry.words == whole.words
    assert entry.counts == whole.counts
    assert entry.logit_bias is not None
    assert whole.logit_bias is not None
    np.testing.assert_array_equal(entry.logit_bias.tokens, whole.logit_bias.tokens)
    np.testing.assert_allclose(entry.logit_bias.values, whole.logit_bias.values, atol=1e-5)
    whole = dataclasses.replace(
        whole, description=entry.description, logit_bias=entry.logit_bias, memory=entry.memory
    )
    assert entry == whole


def test_the_profile_can_be_saved_in_between(
    tiny_engine: Engine, profile: Profile, tmp_path: Path
) -> None:
    profile.save(tmp_path / "me.json")
    loaded = learn_more(tiny_engine, Profile.load(tmp_path / "me.json"), TEXTS)
    assert without_time(loaded) == without_time(learn_more(tiny_engine, profile, TEXTS))


def test_what_cannot_be_saved_can_be_resumed(
    tiny_engine: Engine, profile: Profile, tmp_path: Path, read: list[tuple[list[str], list[str]]]
) -> None:
    def full(_: Profile) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learn_more(tiny_engine, profile, TEXTS, resume=tmp_path, save=full)
    read.clear()
    saved: list[Profile] = []
    added = learn_more(tiny_engine, profile, TEXTS, resume=tmp_path, save=saved.append)
    assert read == []
    assert saved == [added]
    assert list(tmp_path.iterdir()) == []


def test_strings_can_be_added(tiny_engine: Engine, profile: Profile) -> None:
    texts = [item.response for item in TEXTS]
    added = learn_more(tiny_engine, profile, texts)
    expected = learn_more(tiny_engine, profile, [HistoryItem(text) for text in texts])
    assert without_time(added) == without_time(expected)


def test_level_shared_does_not_know_words_of_only_one_earlier_text(tiny_engine: Engine) -> None:
    settings = dataclasses.replace(SETTINGS, memory="shared")
    first = without_time(learn(tiny_engine, FIRST, settings)).memory
    assert first is not None
    assert first.memory is not None
    assert first.memory.ledger is not None
    assert {"lol", "..."} <= set(first.memory.ledger.words)
    assert "kettle" not in first.memory.ledger.words
    more = [HistoryItem("lol kettle once"), HistoryItem("lol daisies once")]
    added = without_time(learn_more(tiny_engine, learn(tiny_engine, FIRST, settings), more)).memory
    assert added is not None
    assert added.memory is not None
    end = tiny_engine.end_of_turn
    n_ends = [int((memory.tokens == end).sum()) for memory in (first.memory, added.memory)]
    # A row for each end, and for each token of the words that only one earlier text has.
    n_hidden = 2
    for item in more:
        words, owners = words_of_tokens(tiny_engine.pieces(tiny_engine.tokenize(item.response)))
        n_hidden += sum(words[owner] in ("kettle", "daisies") for owner in owners if owner >= 0)
    assert n_ends[1] - n_ends[0] == n_hidden


def test_texts_that_were_read_before_are_not_read_again(
    tiny_engine: Engine, profile: Profile, read: list[tuple[list[str], list[str]]]
) -> None:
    again = HistoryItem(FIRST[0].response.upper() + "\n", "Another request")
    added = learn_more(tiny_engine, profile, [again, *TEXTS])
    assert sorted(text for texts, _ in read for text in texts) == sorted(
        item.response for item in MORE
    )
    assert {text for _, others in read for text in others} == {item.response for item in FIRST}
    read.clear()
    assert learn_more(tiny_engine, added, TEXTS) is added
    assert read == []


def test_without_earlier_texts_new_ones_are_in_each_others_context(
    tiny_engine: Engine, profile: Profile, read: list[tuple[list[str], list[str]]]
) -> None:
    added = learn_more(tiny_engine, profile, MORE)
    assert without_time(added).counts["items"] == len(TEXTS)
    new = {item.response for item in MORE}
    for texts, others in read:
        assert set(others) == new - set(texts)


def test_a_single_text_without_others_for_its_context_is_an_error(
    tiny_engine: Engine, profile: Profile
) -> None:
    with pytest.raises(HistoryError, match="There is only one text, and none was read before"):
        learn_more(tiny_engine, profile, MORE[:1])
    added = learn_more(tiny_engine, profile, [FIRST[2], MORE[0]])
    assert without_time(added).counts["items"] == 5


class TestCalibration:
    @pytest.fixture
    def found(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[HeldOutScores, Calibration]]:
        """What is calibrated, with the strength that comes out of it."""
        calls = []

        def recalibrated(scores: HeldOutScores, before: Calibration) -> Calibration:
            calls.append((scores, before))
            setting = dataclasses.replace(before.setting, memory=0.6)
            return dataclasses.replace(before, setting=setting, gain=scores.gain(setting))

        monkeypatch.setattr("steerx_edge.learning.adding.recalibrate", recalibrated)
        return calls

    def test_strengths_are_scored_on_held_out_new_texts(
        self,
        tiny_engine: Engine,
        profile: Profile,
        found: list[tuple[HeldOutScores, Calibration]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("steerx_edge.learning.adding.ENOUGH", 3)
        entry = without_time(learn_more(tiny_engine, profile, TEXTS))
        ((scores, before),) = found
        strength = float(np.float32(0.1))
        assert before == Calibration(Setting(((0, strength),), 0.5, 0.3), GAIN)
        assert entry.memory is not None
        assert entry.memory.strength == 0.6
        assert entry.gain is not None
        assert entry.gain.items == len(MORE)
        lengths = [len(tiny_engine.tokenize(item.response)) + 1 for item in TEXTS]
        new = [tiny_engine.tokenize(item.response) for item in MORE]
        assert sorted(text.response for text in scores.texts) == sorted(new)
        known = dataclasses.replace(profile.entries[0], strengths=np.ones(1, np.float32))
        assert known.logit_bias is not None
        values = dict(zip(known.logit_bias.tokens, known.logit_bias.values, strict=True))
        for j, text in enumerate(scores.texts):
            steering = scores.steering(Setting(((0, 1.0),), 1.0, 0.5), j)
            assert steering.memory is not None
            n_rows = len(steering.memory.memory.tokens)
            assert n_rows == sum(lengths) - len(text.response) - 1
            # No new text enters these.
            assert steering.logit_bias == pytest.approx(values, abs=1e-6)
            np.testing.assert_allclose(steering.vectors, known.vectors(), atol=1e-6)

    def test_too_few_new_texts_change_no_strength(
        self,
        tiny_engine: Engine,
        profile: Profile,
        found: list[tuple[HeldOutScores, Calibration]],
    ) -> None:
        entry = without_time(learn_more(tiny_engine, profile, TEXTS))
        assert not found
        assert entry.memory is not None
        assert entry.memory.strength == 0.3
        assert entry.gain == GAIN

    def test_the_gain_is_that_of_the_new_texts(
        self, tiny_engine: Engine, profile: Profile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the real choice of a strength."""
        monkeypatch.setattr("steerx_edge.learning.adding.ENOUGH", 3)
        entry = without_time(learn_more(tiny_engine, profile, TEXTS))
        assert entry.gain is not None
        assert entry.gain.items == len(MORE)


class TestNotAddedTo:
    def test_a_profile_without_a_memory(self, tiny_engine: Engine) -> None:
        profile = learn(tiny_engine, FIRST, dataclasses.replace(SETTINGS, memory="none"))
        with pytest.raises(ProfileError, match=r"has no memory for .*: learn again from all texts"):
            learn_more(tiny_engine, profile, TEXTS)

    def test_a_memory_that_is_missing(
        self, tiny_engine: Engine, profile: Profile, tmp_path: Path
    ) -> None:
        profile.save(tmp_path / "me.json")
        (tmp_path / "me.memory.gguf").unlink()
        with pytest.raises(ProfileError, match="put the file back next to the profile"):
            learn_more(tiny_engine, Profile.load(tmp_path / "me.json"), TEXTS)

    def test_a_memory_after_texts_were_forgotten(
        self, tiny_engine: Engine, profile: Profile
    ) -> None:
        rest, n_removed, *_ = forget_texts(tiny_engine, profile, FIRST[:1])
        assert n_removed
        with pytest.raises(ProfileError, match=r"lacks the sums .* texts were removed"):
            learn_more(tiny_engine, rest, TEXTS)

    def test_an_entry_of_another_model(
        self,
        profile: Profile,
        open_llama: Callable[..., Llama],
        tiny_q8: TinyModel,
    ) -> None:
        with pytest.raises(ProfileError, match="This profile was made for"):
            learn_more(open_llama(tiny_q8), profile, TEXTS)


def test_texts_read_before_an_interrupt_are_not_read_again(
    tiny_llama: Llama, profile: Profile, tmp_path: Path
) -> None:
    engine = InterruptedEngine(tiny_llama)
    whole = learn_more(engine, profile, TEXTS)
    engine.n_calls, engine.last_call = 0, 5  # in the last of three texts
    with pytest.raises(KeyboardInterrupt):
        learn_more(engine, profile, TEXTS, resume=tmp_path)
    engine.n_calls, engine.last_call = 0, 10**9
    resumed = learn_more(engine, profile, TEXTS, resume=tmp_path)
    assert engine.n_calls == 2
    assert without_time(resumed) == without_time(whole)
    assert list(tmp_path.iterdir()) == []


def test_texts_not_read_within_the_time_limit_stay_new(
    tiny_engine: Engine, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert learn_more(tiny_engine, profile, TEXTS, seconds=0) is profile
    clock = iter([0, 1, 2])  # the beginning, and before the first and the second text
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: next(clock))
        added = learn_more(tiny_engine, profile, TEXTS, seconds=1)
    assert without_time(added).counts["items"] == 5
    whole = without_time(learn_more(tiny_engine, profile, TEXTS))
    assert without_time(learn_more(tiny_engine, added, TEXTS)).memory == whole.memory


def test_progress_counts_each_step(tiny_engine: Engine, profile: Profile) -> None:
    calls: list[tuple[str, int, int]] = []
    learn_more(tiny_engine, profile, TEXTS, progress=lambda *call: calls.append(call))
    assert calls == [*(("further texts", n, 3) for n in range(3)), ("done", 1, 1)]


def test_words_that_were_dropped_stay_dropped(tiny_engine: Engine, profile: Profile) -> None:
    word = profile.entries[0].words[0]
    edit = Edit("drop", word.word, (1,))
    edited = Profile((with_edits(profile.entries[0], [edit]),))
    (entry,) = learn_more(tiny_engine, edited, TEXTS).entries
    (plain,) = learn_more(tiny_engine, profile, TEXTS).entries
    learned = {each.word: each for each in plain.words}[word.word]
    assert learned != word  # it was learned anew
    assert entry.edits == (dataclasses.replace(edit, learned=(learned,)),)
    assert entry.words == tuple(each for each in plain.words if each != learned)
