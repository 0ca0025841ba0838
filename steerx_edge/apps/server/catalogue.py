"""Which profile a request means, by its model or its field `profile`."""

from __future__ import annotations

from typing import Any

from steerx_edge.apps.server.errors import RequestError
from steerx_edge.apps.server.work import ModelInfo

_MOST_SCALE = 10.0
_SHAPE = 'expected a list such as [{"id": "me", "scale": 1.0}]'


class Catalogue:
    """The names of the model and of its profiles, and how strong each is."""

    def __init__(self) -> None:
        self._scales: dict[str, float] = {}

    def scale(self, profile: str) -> float:
        """The relative strength of a profile where a request names none."""
        return self._scales.get(profile, 1.0)

    def set_scales(self, value: object, info: ModelInfo) -> None:
        """Take over the scales of `POST /profiles`.

        Raises:
            RequestError: it is not a list of profiles and scales; nothing is changed then.
        """
        self._scales.update(self._profiles(value, info))

    def models(self, info: ModelInfo) -> list[str]:
        """The model, and the model with each profile."""
        return [info.name, *(f"{info.name}@{profile}" for profile in info.profiles)]

    def choice(self, body: dict[str, Any], info: ModelInfo) -> tuple[str, str | None, float]:
        """What a request is to be answered by.

        Returns:
            The name of the model as the request gives it, the profile if any, and its scale.

        Raises:
            RequestError: there is no such model or profile.
        """
        name = body.get("model") or info.name
        if not isinstance(name, str) or name not in self.models(info):
            raise RequestError(404, f"There is no model {shown(name)}. GET /v1/models lists them.")
        if body.get("profile") is not None:
            chosen = self._profiles(body["profile"], info)
            if len(chosen) > 1:
                raise RequestError(400, "profile names several; at most one is used at a time.")
            profile, scale = next(iter(chosen.items()), (None, 1.0))
            return name, profile, scale
        profile = name.removeprefix(info.name).removeprefix("@") or None
        return name, profile, 1.0 if profile is None else self.scale(profile)

    def _profiles(self, value: object, info: ModelInfo) -> dict[str, float]:
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise RequestError(400, f"profile is not a list of objects; {_SHAPE}.")
        chosen: dict[str, float] = {}
        for each in value:
            profile = each.get("id")
            if not isinstance(profile, str) or profile not in info.profiles:
                raise RequestError(
                    404, f"There is no profile {shown(profile)}. GET /profiles lists them."
                )
            scale = each.get("scale", self.scale(profile))
            if isinstance(scale, bool) or not isinstance(scale, int | float):
                raise RequestError(400, f"scale is not a number; {_SHAPE}.")
            if not abs(scale) <= _MOST_SCALE:
                raise RequestError(400, f"scale is not from {-_MOST_SCALE:g} to {_MOST_SCALE:g}.")
            chosen[profile] = float(scale)
        return chosen


def shown(value: object) -> str:
    """A name of a client's, in a sentence."""
    return repr(value[:80]) if isinstance(value, str) else "of this kind"
