"""Errors, with messages for the user."""


class SteerxError(Exception):
    """Base of all errors that this library raises on purpose.

    The message says what is wrong, with which value, and what to do.
    """


class HistoryError(SteerxError):
    """A history cannot be read."""


class ModelError(SteerxError):
    """A model or its llama.cpp cannot do what was requested."""


class ProfileError(SteerxError):
    """A profile cannot be read, or belongs to another model."""
