"""What a client is told when a request cannot be answered, as llama.cpp's server words it."""

from __future__ import annotations

from typing import Any

INVALID = "invalid_request_error"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_supported_error",
    500: "server_error",
    503: "unavailable_error",
}


class RequestError(Exception):
    """A request that is not answered, and the sentence that says why.

    Attributes:
        status: of HTTP.
        message: one sentence.
        kind: `type` in the body.
        fields: further fields of the body.
    """

    def __init__(self, status: int, message: str, *, kind: str = "", **fields: Any) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.kind = kind or _TYPES.get(status, INVALID)
        self.fields = fields

    def __reduce__(self) -> Any:  # it comes from another process
        return _restored, (self.status, self.message, self.kind, self.fields)

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        error = {"code": self.status, "message": self.message, "type": self.kind, **self.fields}
        return {"error": error}


def _restored(status: int, message: str, kind: str, fields: dict[str, Any]) -> RequestError:
    return RequestError(status, message, kind=kind, **fields)


def too_long(n_prompt: int, n_ctx: int, *, at_least: bool = False) -> RequestError:
    """A prompt that leaves no room in the context for an answer."""
    found = f"{'at least ' * at_least}{n_prompt}"
    return RequestError(
        400,
        f"The prompt has {found} tokens and the context {n_ctx}. Shorten the prompt, or start the "
        "server with a larger -c.",
        kind="exceed_context_size_error",
        n_prompt_tokens=n_prompt,
        n_ctx=n_ctx,
    )
