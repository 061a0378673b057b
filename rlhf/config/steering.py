"""A KL coefficient that is steered to a target."""

from rlhf.config.checks import require

SLOW = 10_000
"""The horizon where none is given."""


def require_steerable(kl_coef: float, target: float | None, horizon: float, batch_size: int) -> None:
    """Raise UserError for a coefficient that no factor changes, or whose factor could be negative.

    An update multiplies it by 1 + e * batch_size / horizon with e from -0.2 to 0.2 (`rlhf.maths.kl`).
    """
    require(
        target is not None or horizon == SLOW,
        f"adaptive_kl_horizon is {horizon}, but adaptive_kl_target is not set, so that kl_coef stays; set it, too",
    )
    require(
        target is None or kl_coef > 0,
        f"adaptive_kl_target is {target}, but kl_coef is 0, and it is multiplied to reach that; give it a first value",
    )
    require(
        target is None or batch_size < 5 * horizon,
        f"adaptive_kl_horizon is {horizon}, at most a fifth of batch_size {batch_size}, so that kl_coef could turn "
        f"negative; make it at least {batch_size}",
    )
