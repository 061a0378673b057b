"""Model cards: README.md of every folder that holds a trained model, made of its config and metrics and nothing else.

The same run yields the same card, bit for bit, also if it was interrupted: no times, no paths of this machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf.config import FineTuningConfig, PPOConfig, RewardModelConfig, SFTConfig
from rlhf.config.evaluation import EARLY_STOPPING
from rlhf.report.card_parts import (
    LOAD_MODEL,
    LOAD_REWARD_MODEL,
    Row,
    assemble,
    bullets,
    first_and_last,
    front_matter,
    generate,
    last_values,
    load_policy_code,
    mean_of,
    progress,
    settings,
    shown_data,
    shown_lora,
    shown_model,
    tenth,
    where_the_base_is,
)
from rlhf.report.tables import before_after, markdown_table
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import METRICS_FILE, WARNINGS_FILE

CARD_FILE = "README.md"
NOT_HELD_OUT = "Nothing was measured on held-out prompts: these are means over training batches."
HELD_OUT_IN_METRICS = "These are means over training batches; the `metrics.jsonl` of the run has `held_out/` ones."
HELD_OUT = "`held_out/` is on rows that were not trained on, the rest on the last batch."
NO_SAFETY = "No safety evaluation was done: nobody has looked at toxicity, bias, privacy or misuse."


def write_policy_card(folder: Path, config: PPOConfig, updates_done: int, run: Path) -> None:
    """Put the card of a policy beside it; the metrics and warnings are those that the run has written so far."""
    n = looked_at(config, updates_done) + 1  # one may be from before the first update
    rows = first_and_last(run / METRICS_FILE, n)
    metrics = [row for row in rows if row["step"] > 0]
    card = ppo_card(config, updates_done, metrics, read_jsonl(run / WARNINGS_FILE))
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def ppo_card(config: PPOConfig, updates_done: int, metrics: Sequence[Row], warnings: Sequence[Row]) -> str:
    """The card of a policy after some of its updates, from the rows of metrics.jsonl and warnings.jsonl.

    Of the metrics only the first and the last `looked_at(config, updates_done)` rows are.
    """
    k, base, sampling = looked_at(config, updates_done), shown_model(config.model), config.sampling
    kl = mean_of(metrics[-k:], "objective/kl") if updates_done else 0.0
    batches = NOT_HELD_OUT if config.evaluation is None else HELD_OUT_IN_METRICS
    rewards = [[spec.metric_name, f"`{spec.path}`", f"{spec.weight:g}"] for spec in config.rewards]
    if config.environment is not None:
        rewards.append([config.environment.metric_name, f"environment `{config.environment.name}`", "1"])
    state = (
        "" if updates_done >= config.num_updates else f", as it was after update {updates_done} of {config.num_updates}"
    )
    code = generate(config.data, sampling.max_new_tokens, sampling.temperature)
    in_full = config.lora is None
    library, tags = ("transformers", ["ppo", "rlhf"]) if in_full else ("peft", ["ppo", "rlhf", "lora"])
    head = " (and a value head)" if config.uses_critic else ""
    what = f"All weights of {base}{head}" if in_full else f"LoRA adapters{head} for {base}"
    if in_full:
        load = LOAD_MODEL.format(dtype=config.model.dtype, generate=code)
    else:
        load = where_the_base_is(config.model) + load_policy_code(config.model, code, config.uses_critic)
    return assemble(
        front_matter(config.model, config.data, library, "text-generation", tags),
        f"PPO policy on {base}",
        f"{what}, trained by proximal policy optimization{state}.",
        {
            "Data": shown_data(config.data),
            "Rewards": f"{markdown_table(['name', 'path', 'weight'], rewards)}\n\n"
            "Weight 0 is measured, not trained on.",
            "Method": settings(_ppo_method(config, updates_done)),
            "Results": f"{progress(metrics, k)}\n\n{batches}" if metrics else batches,
            "Limitations": bullets(_ppo_limits(config, kl, warnings)),
            "How to load": load,
        },
    )


def looked_at(config: PPOConfig, updates_done: int) -> int:
    """How many updates each of the two means in a card is over: a tenth of them, whole batches where these are reused.

    The first use of a batch has the KL, which the others have not.
    """
    batches = -(-tenth(updates_done) // config.reuse_batch)
    return min(updates_done, batches * config.reuse_batch)


def _ppo_method(config: PPOConfig, updates_done: int) -> dict[str, str]:
    """The settings that matter most."""
    target = config.adaptive_kl_target
    penalty = f"kl_coef {config.kl_coef:g}" + (f", steered to {target:g} nats" if target else "")
    sampling, n_uses = config.sampling, config.reuse_batch
    with_critic = config.uses_critic
    critic_rate = f", critic {config.critic_learning_rate:g}" if with_critic else ""
    return {
        "updates": f"{updates_done} of {config.num_updates}" + (f", {n_uses} on each batch" if n_uses > 1 else ""),
        "responses per update": f"{config.batch_size}, {config.num_generations} per prompt",
        "epochs, minibatch": f"{config.num_ppo_epochs}, {config.mini_batch_size}",
        "advantage": config.advantage
        + (f", gamma {config.gamma:g}, lambda {config.gae_lambda:g}" if with_critic else ""),
        **({"critic": config.critic} if with_critic else {}),
        "clip range": f"{config.clip_range:g}",
        "KL penalty": f"{penalty}, estimator {config.kl_estimator}",
        "learning rate": f"{config.learning_rate:g} ({config.lr_schedule}){critic_rate}",
        "LoRA": shown_lora(config.lora, merged=False),
        "sampling": f"temperature {sampling.temperature:g}, at most {sampling.max_new_tokens} tokens",
        "seed": str(config.seed),
    }


def _ppo_limits(config: PPOConfig, kl: float, warnings: Sequence[Row]) -> list[str]:
    """What is not known of the policy, or not good; `kl` in nats per response."""
    sampling = config.sampling
    distance = f"Its KL to its base model is {kl:.3g} nats per response, estimated from samples"
    return [
        "It was paid for the rewards above and for nothing else. What they do not see (whether a response is true, "
        "useful or safe, say) was not optimized and may have become worse than in the base model.",
        f"{distance}; the KL penalty is what held it back." if config.kl_coef else f"{distance}, with no KL penalty.",
        f"It has seen prompts of the training data and its own responses of at most {sampling.max_new_tokens} "
        f"tokens at temperature {sampling.temperature:g}; nothing is known about others.",
        NO_SAFETY,
        *(f"The run warned: {row['message']}" for row in warnings if row["name"] != EARLY_STOPPING),
    ]


def sft_card(config: SFTConfig, metrics: Sequence[Row]) -> str:
    """The card of a model after supervised fine-tuning."""
    scratch = config.model.scratch
    base = shown_model(config.model) if scratch is None else "random weights"
    shape = f"{scratch.architecture}, {scratch.layers} layers, width {scratch.hidden_size}" if scratch else base
    method = {
        "starting point": shape,
        "epochs, batch": f"{config.num_train_epochs:g}, {config.batch_size}",
        **_fine_tuning(config),
    }
    limits = ["It imitates its training data, with whatever is wrong in it.", NO_SAFETY]
    return assemble(
        front_matter(config.model, config.data, "transformers", "text-generation", ["sft"]),
        f"Supervised fine-tuning from {base}",
        "Trained to continue prompts with their completions; the loss counts completion tokens only.",
        {
            "Data": shown_data(config.data),
            "Method": settings(method),
            "Results": f"{last_values(metrics)}\n\n{HELD_OUT if 'held_out/loss' in metrics[-1] else NOT_HELD_OUT}",
            "Limitations": bullets(limits),
            "How to load": LOAD_MODEL.format(dtype=config.model.dtype, generate=generate(config.data, 128, 1.0)),
        },
    )


def reward_card(config: RewardModelConfig, metrics: Sequence[Row], summary: Row) -> str:
    """The card of a reward model, with what was measured on its held-out pairs."""
    base = shown_model(config.model)
    method = {
        "epochs, batch": f"{config.num_train_epochs:g}, {config.batch_size} pairs",
        "extra mismatched pairs per row": f"{config.mismatched:g}",
        **_fine_tuning(config),
    }
    held_out = {name: f"{x:.3f}" for name, x in summary.items() if isinstance(x, float)}
    limits = [
        "It knows the differences that its training pairs show, and is fooled by what they do not show. A policy that "
        "is trained against it will look for that.",
        "Scores compare completions of the same kind of prompt; on other data their scale means nothing.",
        NO_SAFETY,
    ]
    return assemble(
        front_matter(config.model, config.data, "transformers", "text-classification", ["reward-model"]),
        f"Reward model on {base}",
        "Scores a completion of a prompt: trained to score the chosen one of two above the rejected one.",
        {
            "Data": shown_data(config.data),
            "Method": settings(method),
            "Results": f"On {summary['held_out_pairs']} held-out pairs:\n\n{settings(held_out)}\n\n"
            f"At the end of training:\n\n{last_values(metrics)}",
            "Limitations": bullets(limits),
            "How to load": LOAD_REWARD_MODEL,
        },
    )


def _fine_tuning(config: FineTuningConfig) -> dict[str, str]:
    """The settings that both kinds of fine-tuning have."""
    return {
        "learning rate": f"{config.learning_rate:g}, cosine",
        "LoRA": shown_lora(config.lora),
        "seed": str(config.seed),
    }


def add_held_out(folder: Path, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Put the means over held-out prompts, of the base model and of this one, into the card of a policy."""
    file = folder / CARD_FILE
    card = file.read_text(encoding="utf-8")
    sentence = next((said for said in (NOT_HELD_OUT, HELD_OUT_IN_METRICS) if said in card), None)
    if sentence:
        measured = before_after(dict(before), dict(after))
        table = markdown_table(["held-out mean", "base", "this policy", "change"], measured)
        said = f"On held-out prompts:\n\n{table}\n\nAny other numbers are means over training batches."
        file.write_text(card.replace(sentence, said), encoding="utf-8")
