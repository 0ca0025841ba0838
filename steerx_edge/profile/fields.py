"""Fields of an entry that hold arrays: copied, compared, and checked against each other."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerx_edge.errors import ProfileError
from steerx_edge.steering.gate import Gate


class FieldError(ProfileError, ValueError):
    """A field that contradicts another one; the message begins with its name.

    It is a ValueError as well, so that msgspec adds the place in the file.
    """


class ByValue:
    """Equality of frozen dataclasses that hold arrays."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]
        return all(equal(getattr(self, name), getattr(other, name)) for name in names)


def equal(one: object, other: object) -> bool:
    """Whether two fields of an entry hold the same."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Gate) and isinstance(other, Gate):
        return one.threshold == other.threshold and equal(one.direction, other.direction)
    return one == other


def set_fields(record: object, **values: object) -> None:
    """Set fields of a frozen record, in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def floats(record: object, name: str, place: str = "") -> NDArray[np.float32]:
    """A field as float32: a read-only copy of its own."""
    try:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite
            array = np.array(getattr(record, name), np.float32)
    except ValueError:
        raise FieldError(f"{place}{name} has rows of different lengths") from None
    if not np.isfinite(array).all():
        raise FieldError(f"{place}{name} holds a value that is not a finite float32 number")
    array.setflags(write=False)
    return array


def check_length(record: object, name: str, n: int, what: str, place: str = "") -> None:
    """Refuse a field that is not one-dimensional, or not of length n."""
    shape = np.shape(getattr(record, name))
    if shape != (n,):
        raise FieldError(f"{place}{name} has shape {shape}; expected ({n},), one for each {what}")


def check_order(record: object, low: str, high: str) -> None:
    """Refuse a record whose field `low` is above its field `high`."""
    least, most = getattr(record, low), getattr(record, high)
    if least > most:
        raise FieldError(f"{low} is {least!r}; expected at most {high}, {most!r}")


def product(strength: float, scale: ArrayLike, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product in float32, which must hold it."""
    if isinstance(strength, int | float | np.number):
        with np.errstate(all="ignore"):
            scaled = float(strength) * np.asarray(scale, np.float64) * values
            bounded: NDArray[np.float32] = scaled.astype(np.float32)
        if np.isfinite(bounded).all():
            return bounded
    raise FieldError(
        f"strength is {strength!r}; expected a finite number, not too large for float32"
    )
