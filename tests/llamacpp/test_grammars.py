"""Grammars of JSON schemas, and those that llama.cpp does not survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_cpp import Llama
from llama_cpp.llama_grammar import LlamaGrammar

from models import TinyModel
from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.grammars import checked_grammar, grammar_of_schema


def test_a_grammar_lets_no_raw_line_feed_into_a_string(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel
) -> None:
    tiny_llama = open_llama(tiny_f32)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    line_feed, quote = (tiny_llama.tokenize(c, add_bos=False)[-1] for c in (b"\n", b'"'))

    def answer(after: int, **how: Any) -> str:
        """Line feeds where they may be, then a quotation mark."""
        bias = {line_feed: 90.0, quote: float(after)}
        completion: Any = tiny_llama.create_completion(
            "x", max_tokens=24, temperature=0.0, logit_bias=bias, **how
        )
        return str(completion["choices"][0]["text"])

    own = LlamaGrammar.from_json_schema(json.dumps(schema), verbose=False)
    assert "\n" in answer(80, grammar=own)
    assert json.loads(
        answer(80, grammar=checked_grammar(tiny_llama, grammar_of_schema(json.dumps(schema)))),
        strict=True,
    )


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({"$ref": "#/nowhere"}, "cannot be made a grammar"),
        ({"type": "array", "maxItems": 10**9}, "more than 2000 times"),
    ],
)
def test_a_schema_that_cannot_be_followed(schema: dict[str, Any], error: str) -> None:
    with pytest.raises(ModelError, match=error):
        grammar_of_schema(json.dumps(schema))


@pytest.mark.parametrize(
    "grammar", ["", 'root ::= "a', "root ::= " + "(" * 2000 + '"a"' + ")" * 2000]
)
def test_a_grammar_that_llama_cpp_cannot_read(
    open_llama: Callable[..., Llama], tiny_f32: TinyModel, grammar: str
) -> None:
    with pytest.raises(ModelError, match="grammar"):
        checked_grammar(open_llama(tiny_f32), grammar)
