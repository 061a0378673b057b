"""Learning from responses that an earlier policy sampled."""

from typing import TYPE_CHECKING

from rlhf.config.checks import require

if TYPE_CHECKING:
    from rlhf.config.ppo import PPOConfig


def require_corrected(config: "PPOConfig") -> None:
    """Raise UserError where responses are older than the policy and nothing makes up for it, or something cannot."""
    overlaps, n = config.generation.overlap, config.reuse_batch
    require(
        config.importance_correction != "none" or config.importance_cap == type(config).importance_cap,
        f"importance_cap is {config.importance_cap}, but importance_correction is none, so that no weight is capped; "
        "set importance_correction: token (or sequence)",
    )
    if not overlaps and n == 1:
        return
    what = "generation.overlap is true" if overlaps else f"reuse_batch is {n}"
    require(
        n == 1 or not overlaps,
        f"generation.overlap is true and reuse_batch is {n}; one makes time for sampling, the other saves it: keep one",
    )
    require(
        config.importance_correction != "none",
        f"{what}, so that responses are older than the policy that learns from them, but importance_correction is "
        "none; set importance_correction: token (or sequence)",
    )
    require(
        n <= config.num_updates,
        f"reuse_batch is {n}, but num_updates is {config.num_updates}, so that no batch would be learned from that "
        "often; lower one or raise the other",
    )
    require(
        not overlaps or (config.environment is None and config.rollout_batch_size is None),
        "generation.overlap is true, with which a batch is requested as a whole; leave out environment and "
        "rollout_batch_size",
    )
