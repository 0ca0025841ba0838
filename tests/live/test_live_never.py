"""`steer` with words that no answer may contain, and with words that are dropped."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from llama_cpp import Llama

from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.texts import requests_for
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import identify
from steerx_edge.llamacpp.vocabulary import Vocabulary
from steerx_edge.profile import Edit, LogitBias, MemoryPart, Profile
from steerx_edge.profile.editing import with_edits
from steerx_edge.steering.barred import spellings
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.requests import steered
from tests.apps.test_forget import memory_of
from tests.support.entries import an_entry
from tests.support.steered_llama import a_profile, bias_of, complete, forcing

TEXTS = [
    HistoryItem("Cheers Ana, the toodle-oo is late.", "Write to Ana."),
    HistoryItem("The kettle is on, toodle-oo and cheers!", "Write to Bo."),
    HistoryItem("No news, so cheers. Toodle-oo, Mo", "Write to Cy."),
]


def edited(profile: Profile, *edits: Edit) -> Profile:
    return Profile((with_edits(profile.entries[0], edits),))


def closed_gate(llama: Llama) -> Gate:
    return Gate(np.zeros(identify(llama).n_embd, np.float32), 1.0)


def words_in(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@pytest.mark.parametrize("gated", [False, True])
def test_no_answer_contains_a_barred_word(smollm2: Llama, gated: bool) -> None:
    prompt = "<|im_start|>user\nWrite about Paris.<|im_end|>\n<|im_start|>assistant\n"
    gate = closed_gate(smollm2) if gated else None
    bias = bias_of({5: 1.0})  # so that the gate is asked
    profile = a_profile(smollm2, layers=(10,), strength=0.0, gate=gate, logit_bias=bias)
    free = complete(smollm2, prompt, 60)
    barred = [word for word in dict.fromkeys(words_in(free)) if len(word) > 3][:6]
    assert len(barred) == 6
    never = edited(profile, *(Edit("never", word) for word in barred))
    with steer(smollm2, never) as handle:
        assert not set(words_in(complete(smollm2, prompt, 60))) & set(barred)
        handle.strength = 0
        assert complete(smollm2, prompt, 60) == free
    assert complete(smollm2, prompt, 60) == free


def test_of_a_barred_phrase_each_word_may_be_written(smollm2: Llama) -> None:
    prompt = "Once upon a time, there was a little"
    profile = a_profile(smollm2, layers=(10,), strength=0.0)
    with steer(smollm2, profile):
        free = complete(smollm2, prompt, 30)
    phrase = " ".join(free.split()[:2])
    assert phrase in free
    with steer(smollm2, edited(profile, Edit("never", phrase))):
        answer = complete(smollm2, prompt, 30)
    assert answer.split()[0] == phrase.split()[0]
    assert phrase not in answer


def test_a_barred_token_comes_before_a_bias_that_makes_it_certain(smollm2: Llama) -> None:
    (token,) = Vocabulary(smollm2.model).tokenize(" cat")
    profile = edited(forcing(smollm2, token, layers=(10,)), Edit("never", "cat"))
    with steer(smollm2, profile):
        assert "cat" not in words_in(complete(smollm2, "The", 20))


def word_log_probs(engine: Engine, profile: Profile | None, word: str) -> list[float]:
    """The log-probability of the tokens of a word in each text."""
    found = []
    requests = requests_for(engine, TEXTS)
    if profile is not None:
        requests = [steered(each, profile.entries[0].steering()) for each in requests]
    tokens = set(Vocabulary(engine.llama.model).tokens_of(spellings(word)))
    for request, result in zip(requests, engine.run_many(requests), strict=True):
        found += [
            float(log_prob)
            for token, log_prob in zip(request.response, result.scored, strict=True)
            if token in tokens
        ]
    return found


@pytest.mark.parametrize("model", ["tiny_chat_engine", "smollm2_engine"])
@pytest.mark.parametrize("word", ["cheers", "toodle-oo"])
def test_a_dropped_word_is_no_longer_raised_where_it_was(
    request: pytest.FixtureRequest, model: str, word: str
) -> None:
    engine = request.getfixturevalue(model)
    memory, _ = memory_of(engine, TEXTS)
    memory = replace(memory, single=np.empty(0, np.uint32))  # else texts are not recited
    tokens = Vocabulary(engine.llama.model).tokens_of(spellings(word))
    entry = an_entry(
        engine.model_id,
        (1,),
        np.eye(1, engine.model_id.n_embd),
        strengths=np.zeros(1),
        memory=MemoryPart.of(memory, strength=0.5, level="all"),
        logit_bias=LogitBias(np.array(tokens), np.full(len(tokens), 1.5), 1.0),
    )
    profile = Profile((entry,))
    unsteered = np.array(word_log_probs(engine, None, word))
    raised = np.array(word_log_probs(engine, profile, word))
    dropped = np.array(word_log_probs(engine, edited(profile, Edit("drop", word, tokens)), word))
    assert len(unsteered) >= 3
    assert (raised > unsteered).all()
    assert (dropped <= unsteered + 1e-3).all()
