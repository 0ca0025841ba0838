"""Grammars for the answers of a model, from somebody who may not mean well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llama_cpp
from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

from steerx_edge.errors import ModelError

if TYPE_CHECKING:
    from llama_cpp import Llama

# llama.cpp reads a grammar by functions that call themselves, and crashes where they do so often.
_MOST_BYTES = 1 << 16
_MOST_GROUPS = 1000
_MOST_RULES = 1000


def grammar_of_schema(schema: str) -> str:
    """A grammar of the JSON that a JSON schema allows.

    Raises:
        ModelError: the schema is not one, or uses what llama-cpp-python does not know.
    """
    try:
        grammar: str = json_schema_to_gbnf(schema)
    except Exception as error:  # of any kind
        raise ModelError(
            "The JSON schema cannot be made a grammar. Leave out what is not in plain JSON Schema."
        ) from error
    return grammar


def checked_grammar(llama: Llama, text: str) -> Any:
    """A grammar as `Llama.create_completion` takes it, after llama.cpp has read it once.

    Raises:
        ModelError: it is too large, or llama.cpp cannot read it.
    """
    if (
        len(data := text.encode()) > _MOST_BYTES
        or text.count("(") > _MOST_GROUPS
        or text.count("::=") > _MOST_RULES
    ):
        raise ModelError(
            f"The grammar is too large. At most {_MOST_BYTES} bytes, {_MOST_RULES} rules and "
            f"{_MOST_GROUPS} groups are allowed."
        )
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, data, b"root") if text.strip() else None
    if not sampler:
        raise ModelError("The grammar is not GBNF with a rule 'root' that llama.cpp can read.")
    llama_cpp.llama_sampler_free(sampler)
    return LlamaGrammar.from_string(text, verbose=False)
