"""TRL's controllers of the KL coefficient, under the names that scripts know: `value`, `init_kl_coef`."""

from typing import Any

from rlhf.maths import kl


class _Value:
    kl_coef: float

    @property
    def value(self) -> float:
        """The coefficient; what is assigned acts from the next `step` on."""
        return self.kl_coef

    @value.setter
    def value(self, value: float) -> None:
        self.kl_coef = value


class FixedKLController(_Value, kl.FixedKLController):
    """A coefficient that `update` leaves as it is."""


class AdaptiveKLController(_Value, kl.AdaptiveKLController):
    """A coefficient that `update` steers to a KL of `target` nats per response, see `rlhf.maths.kl`."""

    def __init__(self, init_kl_coef: float, target: float, horizon: float) -> None:
        super().__init__(init_kl_coef, target, horizon)


class ControllerOfTheirOwn(kl.FixedKLController):
    """A controller of the caller's, which has `value` and `update(current, n_steps)` as TRL's have."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs

    @property
    def kl_coef(self) -> float:  # type: ignore[override]
        return float(self.theirs.value)

    def update(self, kl: float, n_steps: int) -> None:
        self.theirs.update(kl, n_steps)
