"""The metrics of a rollout: the state of training."""

from rlhf.maths.tensors import explained_variance, masked_mean, zero_outside
from rlhf.ppo.rollout import Rollout
from rlhf.rewards import Scores


def rollout_metrics(
    rollout: Rollout, component_scores: Scores, kl_coef: float, with_critic: bool, is_old: bool = False
) -> dict[str, float]:
    """Metrics of one rollout, before the policy is updated on it.

    objective/kl is the mean over responses of the summed k1 estimate, in nats; objective/rlhf_reward is the score
    minus the KL penalty, what PPO maximizes (neither is of this policy where a batch `is_old`); reward/<name> is the
    mean of each component over the samples that it applies to, reward_metric/<name> of what rewards log as a metric.
    sampling/kl is the mean over tokens of the log-probability that the sampler gave what it drew minus that of the
    policy, in nats: what rounding makes of weights and kernels that are not the update's, and updates since of the
    policy; sampling/ratio_max is the largest ratio of a token, policy to sampler.
    """
    mask = rollout.response_mask
    metrics = {
        "objective/score": rollout.scores.mean(),
        "objective/score_std": rollout.scores.std(unbiased=False),
        "objective/entropy": masked_mean(rollout.entropy, mask),
        "objective/logprob": masked_mean(rollout.old_logprobs, mask),
        "response/length": rollout.lengths.float().mean(),
        "response/length_std": rollout.lengths.float().std(unbiased=False),
        "response/eos_rate": rollout.has_eos.float().mean(),
    }
    if not is_old:
        metrics["objective/rlhf_reward"] = rollout.rewards.sum(-1).mean()
        metrics["objective/kl"] = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1).mean()
        metrics["objective/kl_per_token"] = masked_mean(rollout.kl, mask)
    if rollout.sampler_logprobs is not None:
        difference = zero_outside(rollout.old_logprobs - rollout.sampler_logprobs, mask)
        metrics["sampling/kl"] = masked_mean(-difference, mask)
        metrics["sampling/ratio_max"] = difference.max().exp()
    if with_critic:
        metrics |= {
            "critic/values_mean": masked_mean(rollout.old_values, mask),
            "critic/returns_mean": masked_mean(rollout.returns, mask),
            "critic/explained_variance": explained_variance(rollout.old_values, rollout.returns, mask),
        }
    components = {f"reward/{name}": mean for name, mean in component_scores.component_means().items()}
    logged = component_scores.logged.metric_means()
    return (
        {name: value.item() for name, value in metrics.items()} | {"objective/kl_coef": kl_coef} | components | logged
    )
