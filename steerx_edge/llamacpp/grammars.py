"""Grammars for the answers of a model, from somebody who may not mean well."""

from __future__ import annotations

import json
import re
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
_MOST_TIMES = 2000  # llama.cpp's limit; llama-cpp-python writes out each time
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")


def grammar_of_schema(schema: str) -> str:
    """A grammar of the JSON that a JSON schema allows.

    llama-cpp-python's own, which lets raw line feeds into strings, with llama.cpp's rule for
    characters.

    Raises:
        ModelError: the schema is not one, or uses what llama-cpp-python does not know.
    """
    _check_counts(json.loads(schema))
    try:
        grammar: str = json_schema_to_gbnf(schema)
    except Exception as error:  # of any kind
        raise ModelError(
            "The JSON schema cannot be made a grammar. Leave out what is not in plain JSON Schema."
        ) from error
    return grammar.replace(r'[^"\\]', r'[^"\\\x7F\x00-\x1F]')


def _check_counts(schema: Any) -> None:
    """Refuse what would be repeated so often that no memory holds it."""
    inside = [schema]
    while inside:
        each = inside.pop()
        inside += (
            each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        )
        if not isinstance(each, dict):
            continue
        counts = [each[name] for name in _COUNTS if name in each]
        is_long = re.search(r"\d{5}", str(each.get("pattern", "")))
        if is_long or not all(isinstance(n, int) and 0 <= n <= _MOST_TIMES for n in counts):
            raise ModelError(f"The JSON schema repeats something more than {_MOST_TIMES} times.")


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
