"""Values of options that click has no type for."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from steerx_edge.history.budget import LEAST_PREFIX, MOST_PREFIX

MAX_INT = 2**31 - 1  # of C


class FiniteFloat(click.ParamType):  # type: ignore[type-arg]
    """A float other than `nan` and `inf`.

    Args:
        at_least_0: refuse negative numbers.
    """

    name = "float"

    def __init__(self, *, at_least_0: bool = False) -> None:
        self._at_least_0 = at_least_0

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number."""
        number = float(click.FLOAT.convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        if self._at_least_0 and number < 0:
            self.fail(f"{value} is negative. Give 0 or more.", param, ctx)
        return number


class PrefixLength(click.ParamType):  # type: ignore[type-arg]
    """Tokens of a prefix, or 0 for none."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number."""
        try:
            n_tokens = int(value)
        except ValueError:
            self.fail(
                f"'{value}' is not a number of tokens. If none is meant, put a file or another "
                "option before this one.",
                param,
                ctx,
            )
        if n_tokens and not LEAST_PREFIX <= n_tokens <= MOST_PREFIX:
            self.fail(
                f"{value} cannot be used. Give {LEAST_PREFIX} to {MOST_PREFIX}, or 0.", param, ctx
            )
        return n_tokens


class GpuLayers(click.ParamType):  # type: ignore[type-arg]
    """A number of layers; llama.cpp's `auto`, `all` and every number below 0 are all of them."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a number or a word."""
        if str(value).strip() in ("auto", "all"):
            return -1
        return max(-1, click.IntRange(max=MAX_INT).convert(value, param, ctx))


class LayerList(click.ParamType):  # type: ignore[type-arg]
    """0-based layers, such as `12` or `10,12-14`."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse numbers and ranges."""
        layers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
            if not match:
                self.fail(f"'{value}' is not a list of layers such as 12 or 10,12-14.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            layers.extend(range(first, last + 1))
        if not layers:
            self.fail(f"'{value}' names no layer.", param, ctx)
        return tuple(layers)


class HubRepository(click.ParamType):  # type: ignore[type-arg]
    """A repository of Hugging Face, as llama.cpp takes it: user/repo or user/repo:quantization."""

    name = "repository"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", str(value), re.ASCII):
            self.fail(f"'{value}' is not of the form user/repo or user/repo:Q4_K_M.", param, ctx)
        return str(value)
