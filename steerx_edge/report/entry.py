"""An entry of a profile as JSON, for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from steerx_edge.profile.json_format import encode

if TYPE_CHECKING:
    from steerx_edge.profile import Entry

_VECTORS = ("directions", "norms", "gate")


def entry_as_json(entry: Entry) -> str:
    """The entry as `me.json` has it, without vectors; of the logit bias only how many tokens."""
    (plain,) = json.loads(encode([entry]))["entries"]
    for name in _VECTORS:
        del plain[name]
    if plain["logit_bias"]:
        n_tokens = len(plain["logit_bias"]["tokens"])
        plain["logit_bias"] = {"strength": plain["logit_bias"]["strength"], "tokens": n_tokens}
    return json.dumps(plain, indent=2, ensure_ascii=False)
