"""What calibration measured: the gain at other strengths than those that were chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

from steerx_edge.profile.fields import FieldError, set_fields
from steerx_edge.profile.parts import Gain


@dataclass(frozen=True)
class Trial(Gain):
    """The gain at one strength, or with one number of texts, all else as it was chosen.

    Attributes:
        at: the strength, or how many texts; at least 0.
        loss: what neutral text lost, nats/token; None where that was not measured.
    """

    at: float
    loss: float | None = None


@dataclass(frozen=True)
class DirectionsTrial(Gain):
    """The gain of some directions, with the logit bias and the memory as they were chosen.

    Attributes:
        layers: blocks whose output is steered; none for no direction.
        contrast_methods: what each layer's direction is made by; (layer,).
        strengths: what is added at each layer, as a share of the norm there; (layer,).
        loss: what neutral text lost, nats/token; None where that was not measured.

    Raises:
        ProfileError: fields do not fit together.
    """

    layers: tuple[int, ...]
    contrast_methods: tuple[str, ...]
    strengths: tuple[float, ...]
    loss: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("contrast_methods", "strengths"):
            n = len(getattr(self, name))
            if n != len(self.layers):
                raise FieldError(
                    f"{name} holds {n} values; expected {len(self.layers)}, one for each layer"
                )


@dataclass(frozen=True)
class Trials:
    """What calibration measured on held-out texts, one strength after the other.

    Each curve goes through the setting that was chosen, or, where none was reliable, through the
    best one. Gains are over the unsteered model with the same prompt.

    Attributes:
        memory: by strength of the memory, increasing.
        logit_bias: by strength of the logit bias, increasing.
        directions: by directions, in the order in which they were tried.
        memory_with_history: as `memory`, for prompts that hold texts of the user.
        logit_bias_with_history: as `logit_bias`, for these.
        texts: by the number of texts in the memory, increasing; directions and logit bias are
            always those of all texts.

    Raises:
        ProfileError: a curve does not increase.
    """

    memory: tuple[Trial, ...] = ()
    logit_bias: tuple[Trial, ...] = ()
    directions: tuple[DirectionsTrial, ...] = ()
    memory_with_history: tuple[Trial, ...] = ()
    logit_bias_with_history: tuple[Trial, ...] = ()
    texts: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            set_fields(self, **{name: tuple(getattr(self, name))})
            curve = getattr(self, name)
            if name != "directions" and any(b.at <= a.at for a, b in pairwise(curve)):
                raise FieldError(f"{name} holds values of at that do not increase")
