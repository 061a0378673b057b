"""Which charts a stage has: titles, units, what to look for."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: Above it.
        unit: Of its vertical axis.
        metrics: Names or patterns of what it shows.
        note: What it is, and what to look for, in a sentence.
        line: From the config of the stage to a horizontal line (label, value), or None.
    """

    title: str
    unit: str
    metrics: tuple[str, ...]
    note: str = ""
    line: Callable[[Row], tuple[str, float] | None] = lambda config: None


def setting(label: str, *path: str) -> Callable[[Row], tuple[str, float] | None]:
    """A line at the value that the config has at this path."""

    def find(config: Row) -> tuple[str, float] | None:
        value: Any = config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return (label, float(value)) if isinstance(value, int | float) else None

    return find


def response_limit(config: Row) -> tuple[str, float] | None:
    """A line where responses are cut off: with an environment over all turns."""
    limit = setting("max_new_tokens", "sampling", "max_new_tokens")(config)
    turns = setting("max_turns", "environment", "max_turns")(config)
    return limit if limit is None or turns is None else ("max_turns x max_new_tokens", turns[1] * limit[1])


NAMES = {
    "objective/score": "score (weighted sum)",
    "objective/rlhf_reward": "score minus KL penalty",
    "policy/clip_fraction": "policy",
    "critic/clip_fraction": "critic",
    "policy/dual_clip_fraction": "policy, dual clip",
    "policy/grad_norm": "policy",
    "critic/grad_norm": "critic",
    "policy/approx_kl": "k2",
    "policy/approx_kl_k1": "k1",
    "policy/steps": "taken",
    "policy/skipped_steps": "skipped",
    "policy/ratio_mean": "mean over the update",
    "policy/ratio_first_minibatch": "first minibatch",
    "critic/values_mean": "values",
    "critic/returns_mean": "returns",
}

Sections = dict[str, tuple[Panel, ...]]
PPO: Sections = {
    "Reward and KL": (
        Panel(
            "Reward", "mean per response", ("objective/score", "reward/*"),
            "The score and its components, unweighted. Components that part ways say what the score is made of.",
        ),
        Panel(
            "Reward, held out", "mean per response", ("held_out/score", "held_out/reward/*"),
            "The same on prompts that are not trained on. A training curve that leaves it behind is overfitting.",
        ),
        Panel("pass@k, held out", "share of prompts", ("held_out/pass@*",),
              "That at least one of k responses solves. pass@1 that rises alone: surer, not more able."),
        Panel("Greedy decoding, held out", "mean per response", ("held_out/greedy/score", "held_out/greedy/reward/*"),
              "The likeliest token at every step: what is left of the gain without sampling."),
        Panel(
            "KL to the reference", "nats per response", ("objective/kl",),
            "How far the policy has moved. Rising without end: kl_coef is too small.",
            setting("adaptive_kl_target", "adaptive_kl_target"),
        ),
        Panel("KL, held out", "nats per response", ("held_out/kl",), "To the reference, at the sampling temperature."),
        Panel("What PPO maximizes", "mean per response", ("objective/rlhf_reward",), "The score minus the KL penalty."),
        Panel("Spread of the score", "standard deviation over a batch", ("objective/score_std",),
              "Near 0, all responses earn the same and nothing can be learned from comparing them."),
        Panel("KL coefficient", "reward per nat", ("objective/kl_coef",),
              "Moves only where adaptive_kl_target is set."),
        Panel("KL per token", "nats per token", ("objective/kl_per_token",), "As it is charged."),
    ),
    "Responses": (
        Panel(
            "Entropy", "nats per token", ("objective/entropy",),
            "How undecided the policy is. A fall to 0 is collapse: one response to every prompt.",
        ),
        Panel("Log-probability", "mean of the sampled tokens, nats", ("objective/logprob",),
              "Mirrors the entropy; where the two part, sampling and training disagree."),
        Panel(
            "Length", "tokens per response, EOS included", ("response/length",),
            "Growth to the limit is the commonest way of gaming a reward.",
            response_limit,
        ),
        Panel("Length, held out", "tokens per response", ("held_out/length", "held_out/greedy/length"),
              "Sampled, and decoded greedily where that is measured."),
        Panel("Spread of the length", "standard deviation, tokens", ("response/length_std",),
              "Near 0, all responses have the same length."),
        Panel("Responses that end by themselves", "share with EOS", ("response/eos_rate",), "The rest was cut off."),
        Panel("End by themselves, held out", "share with EOS", ("held_out/eos_rate", "held_out/greedy/eos_rate")),
        Panel("Entropy, held out", "nats per token", ("held_out/entropy",)),
    ),
    "Policy": (
        Panel(
            "Clipped tokens", "share of tokens", ("policy/clip_fraction", "policy/dual_clip_fraction",
                                                  "critic/clip_fraction"),
            "How often the trust region holds an update back. Above about 0.3, the steps are too large.",
        ),
        Panel("KL of an update", "nats per token", ("policy/approx_kl", "policy/approx_kl_k1"),
              "Between the policy before and during an update; k1 is unbiased, but noisy."),
        Panel("Probability ratio", "new / old", ("policy/ratio_mean", "policy/ratio_first_minibatch"),
              "1 in the first minibatch, unless sampling and training disagree."),
        Panel("Policy loss", "clipped objective", ("policy/loss",), "Its size says little; look at the reward."),
        Panel("Gradient norms", "before clipping", ("policy/grad_norm", "critic/grad_norm"),
              "Spikes are the first sign of trouble.", setting("max_grad_norm", "max_grad_norm")),
        Panel("Learning rate", "per step", ("policy/learning_rate",)),
        Panel("Optimizer steps", "per update", ("policy/steps", "policy/skipped_steps"),
              "Skipped: a loss or gradient was not finite."),
    ),
    "Critic": (
        Panel(
            "Explained variance", "1 is perfect, 0 is a constant", ("critic/explained_variance",),
            "Share of the variance of the returns that the critic foresaw. Below 0 it does harm.",
        ),
        Panel("Critic loss", "squared error, clipped", ("critic/loss",)),
        Panel("Values and returns", "mean per token", ("critic/values_mean", "critic/returns_mean"),
              "The critic follows what it is trained on; a gap that stays is bias."),
    ),
    "Speed": (
        Panel("Throughput", "response tokens per second", ("time/tokens_per_second",)),
        Panel("Where the time goes", "seconds per update", ("time/*",)),
    ),
}  # fmt: skip

TRAINED: Sections = {
    "Training": (
        Panel("Loss", "nats per token", ("sft/loss",), "On completion tokens only."),
        Panel("Loss", "-log sigmoid(margin)", ("reward/loss",), "log 2 = 0.69 is guessing."),
        Panel("Loss, held out", "as above", ("held_out/loss",), "Rising while the training loss falls is overfitting."),
        Panel("Token accuracy", "share of tokens", ("sft/token_accuracy",)),
        Panel("Accuracy", "share of pairs", ("reward/accuracy",), "0.5 is guessing."),
        Panel("Accuracy, held out", "share of tokens", ("held_out/token_accuracy",)),
        Panel("Accuracy, held out", "share of pairs", ("held_out/accuracy",)),
        Panel("Margin", "chosen minus rejected", ("reward/margin",)),
        Panel("Margin, held out", "chosen minus rejected", ("held_out/margin",)),
        Panel("Gradient norm", "before clipping", ("*/grad_norm",), "", setting("max_grad_norm", "max_grad_norm")),
        Panel("Learning rate", "per step", ("*/learning_rate",)),
        Panel("Held-out measurement", "seconds", ("time/held_out",)),
        Panel(
            "Skipped steps",
            "1 where a step was left out",
            ("*/skipped_steps",),
            "A loss or gradient that was not finite.",
        ),
    ),
}

TOY: Sections = {
    "": (
        Panel("Score", "mean per response", ("score",), "What the tiny language model is paid for."),
        Panel("Solved", "share of tasks", ("solved",), "What it was meant to do: the gold reward."),
        Panel("Expected reward", "per action of the policy", ("expected_reward",)),
        Panel("Reward", "mean of the batch", ("reward",)),
        Panel("Spread of the reward", "variance within the batch", ("reward_variance",)),
        Panel("KL to the reference", "nats", ("kl",), "", setting("adaptive_kl_target", "adaptive_kl_target")),
        Panel("KL of an update", "nats", ("update_kl", "approx_kl", "approx_kl_k1")),
        Panel("Forces", "along the gradient of the KL", ("push", "pull"),
              "The reward pushes the policy away from the reference, the KL penalty pulls it back."),
        Panel("Distance from the optimum", "total variation", ("total_variation",),
              "Of the policy with a KL penalty from the one that the closed form names."),
        Panel("Clipped", "share", ("clip_fraction", "dual_clip_fraction")),
        Panel("Explained variance", "1 is perfect, 0 is a constant", ("explained_variance",)),
        Panel("Length", "tokens per response", ("tokens",)),
        Panel("Probability ratio", "new / old", ("ratio_mean",)),
    ),
}  # fmt: skip

SECTIONS: dict[str, Sections] = {
    "ppo": PPO, "sft": TRAINED, "reward model": TRAINED, "toy": TOY,
}  # fmt: skip
LEFT_OUT = {"step", "policy/warmup"}


def assign(stage: str, metrics: list[str]) -> dict[str, list[tuple[Panel, list[str]]]]:
    """Section -> [(panel, its metrics)] for the metrics of a run; each metric has one place.

    What no panel asks for gets a chart of its own in the section Others, so that nothing a run logs is lost.
    """
    left = [metric for metric in metrics if metric not in LEFT_OUT]
    sections: dict[str, list[tuple[Panel, list[str]]]] = {}
    for section, panels in SECTIONS[stage].items():
        for panel in panels:
            found = [m for pattern in panel.metrics for m in left if fnmatchcase(m, pattern)]
            if found:
                sections.setdefault(section, []).append((panel, found))
                left = [metric for metric in left if metric not in found]
    if left:
        sections["Others" if sections else ""] = [(Panel(metric, "", (metric,)), [metric]) for metric in left]
    return sections


def name_of(metric: str) -> str:
    """What a metric is called in a legend; that it is held out is in the title of its chart."""
    metric = metric.removeprefix("held_out/")
    plain = metric.startswith("time/") or "/" not in metric
    return NAMES.get(metric, metric.split("/", 1)[-1].replace("_", " ") if plain else metric)
