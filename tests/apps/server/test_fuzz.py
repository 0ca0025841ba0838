"""Some hundred requests at random; `fuzz.py` asks any number of them."""

from __future__ import annotations

from contextlib import closing

from hypothesis import HealthCheck, given, settings

from models import TinyModel
from tests.apps.server import fuzz
from tests.apps.server.conftest import fresh_llama
from tests.support.server import Server


def test_random_requests_are_answered_and_give_no_secret(
    server: Server, tiny_chat: TinyModel
) -> None:
    with closing(fresh_llama(tiny_chat)) as llama:
        secret = llama.detokenize(list(fuzz.SECRET)).decode()

    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzz.requests())
    def ask(request: tuple[str, bytes]) -> None:
        fuzz.check(server, *request, secret)

    ask()
    assert server.chat("tiny", "Alice")
