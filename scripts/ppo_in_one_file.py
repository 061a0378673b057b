"""PPO for language models in one file: RLHF as in Ziegler et al. 2019, with LoRA and a value head.

    python scripts/ppo_in_one_file.py                                     # a tiny model, made on the spot
    python scripts/ppo_in_one_file.py --kl_coef 0                         # no KL penalty: more score, less grammar
    python scripts/ppo_in_one_file.py --model gpt2 --learning_rate 1e-4   # one from the hub, or from a folder

The model continues short reviews, and the reward counts kind words; for a task of your own change `PROMPTS` and
`reward`. Read from top to bottom: settings, task, one trunk for three networks, and the algorithm: sample, score,
assign credit, clipped epochs. The maths are functions of tensors, imported from the package: a few lines each, with
their equations where they are called. `rlhf ppo` does the same update and adds what long runs need: critics with a
trunk of their own, micro-batches, several processes, checkpoints, a watch. This file saves nothing.

Shapes: B responses, P prompt tokens, T response tokens, V vocabulary, H hidden.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
import transformers
from jsonargparse import auto_cli
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.maths.advantages import gae, kl_shaped_rewards
from rlhf.maths.kl import kl_estimate
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import entropy_from_logits, explained_variance, logprobs_from_logits, masked_mean, whiten

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """PPO for a causal language model, in one file.

    Args:
        model: Hub name or folder of a causal language model; without it a tiny one is made and pretrained.
        lora_r: Rank of the adapters.
        max_new_tokens: Tokens of a response at most.
        temperature: Divides the logits, both when sampling and when evaluating.
        num_updates: Rounds of sampling and learning.
        batch_size: Responses per update.
        num_ppo_epochs: Passes over the responses of an update.
        mini_batch_size: Responses per optimizer step; an epoch's last step takes what is left.
        learning_rate: Of adapters and value head.
        max_grad_norm: The gradients of policy and critic are each scaled down to this norm.
        clip_range: A token's probability gains nothing by moving further than this, as a share of what it was.
        value_clip_range: A value gains nothing by moving further than this, in units of the score.
        vf_coef: Weight of the value loss.
        gamma: Discount per token.
        gae_lambda: At 1 advantages trust the rewards that came, at 0 the critic.
        kl_coef: Price of a nat of distance from the reference, in units of the score.
        seed: Of the weights that are made, the prompts, the responses and the minibatches.
    """

    model: str | None = None
    lora_r: PositiveInt = 16
    max_new_tokens: PositiveInt = 16
    temperature: PositiveFloat = 1.0
    num_updates: PositiveInt = 30
    batch_size: PositiveInt = 64
    num_ppo_epochs: PositiveInt = 4
    mini_batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 3e-4
    max_grad_norm: PositiveFloat = 1.0
    clip_range: PositiveFloat = 0.2
    value_clip_range: PositiveFloat = 0.2
    vf_coef: NonNegativeFloat = 0.5
    gamma: ClosedUnitInterval = 1.0
    gae_lambda: ClosedUnitInterval = 0.95
    kl_coef: NonNegativeFloat = 0.05
    seed: NonNegativeInt = 0


# --- The task ---------------------------------------------------------------------------------------------------------

KIND = ("good", "great", "warm", "bright", "fresh", "funny")
UNKIND = ("bad", "awful", "cold", "dull", "stale", "boring")
PROMPTS = ("The film was", "Her new book was", "Dinner at the old harbor was", "The weather was", "Our hotel was")


def reward(prompt: str, response: str) -> float:
    """Kind words minus unkind ones, a fifth of a point each.

    Any function of the two texts will do: it is never differentiated. The fifths keep scores near 1, the scale that
    `value_clip_range` and `kl_coef` are made for.
    """
    words = response.lower().replace(",", " ").replace(".", " ").split()
    return (sum(word in KIND for word in words) - sum(word in UNKIND for word in words)) / 5


# --- The model: policy, reference and critic on one trunk -------------------------------------------------------------


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A causal language model, from the hub or a folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    if tokenizer.eos_token is None:
        raise SystemExit(f"the tokenizer of {name!r} has no EOS token; PPO needs one to know where a response ends")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # masks are explicit, so EOS may pad
    return transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), tokenizer


def write_review() -> str:
    """A prompt with 2 to 6 words of one mood, mixed with a few of any: the language of the tiny model."""
    mood = random.choice((KIND, UNKIND))
    words = [random.choice(mood if random.random() < 2 / 3 else KIND + UNKIND) for _ in range(random.randint(2, 6))]
    return f"{random.choice(PROMPTS)} {', '.join(words)}.<eos>"


def make_model(max_new_tokens: int, steps: int = 150) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A tiny GPT-2 with a token per word, pretrained on reviews: without habits of its own there is nothing to keep."""
    words = sorted({word for text in (*PROMPTS, *KIND, *UNKIND) for word in text.split()})
    word_level = Tokenizer(models.WordLevel({word: i for i, word in enumerate([",", ".", *words])}))
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()  # punctuation apart
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_level, eos_token="<eos>", pad_token="<eos>")
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=32 + max_new_tokens, n_embd=128, n_layer=2, n_head=4,
        initializer_range=0.05,  # at GPT-2's 0.02 so few words stay too much alike for adapters to tell them apart
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = tokenizer([write_review() for _ in range(64)], padding=True, return_tensors="pt")
        logits = model(**batch).logits  # those at position i are for token i + 1
        logprobs = logprobs_from_logits(logits[:, :-1], batch.input_ids[:, 1:])
        loss = -masked_mean(logprobs, batch.attention_mask[:, 1:].bool())  # EOS is learned, padding is not
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, tokenizer


def add_adapters(model: PreTrainedModel, lora_r: int) -> tuple[PeftModel, nn.Linear]:
    """(policy, value head) on a frozen base: with its adapters on it is the policy, with them off the reference."""
    # What a model brings along for sampling (top-k, a repetition penalty) would draw the tokens from another
    # distribution than the one whose probabilities PPO improves.
    model.generation_config = transformers.GenerationConfig()
    is_transposed = model.config.model_type == "gpt2"  # its linear layers keep weights as [in, out]
    lora = LoraConfig(r=lora_r, lora_alpha=2 * lora_r, target_modules="all-linear", fan_in_fan_out=is_transposed)
    policy = get_peft_model(model, lora)
    value_head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(value_head.weight)  # a critic that knows nothing says nothing: values begin at 0
    nn.init.zeros_(value_head.bias)
    # eval() for good: it turns off dropout, not gradients. Dropout would make the ratio differ from 1 by chance.
    return policy.eval().to(DEVICE), value_head.to(DEVICE)


def make_optimizer(policy: PeftModel, value_head: nn.Linear, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW on two groups, policy and critic, so that their gradients can be clipped apart."""
    adapters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [{"params": adapters}, {"params": list(value_head.parameters())}]
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0)


class Evaluation(NamedTuple):
    """What the networks say of responses; each [B, T], garbage outside the response mask, which the maths leave out."""

    logprobs: Tensor  # log pi(token t | all before it)
    values: Tensor  # V of the state before token t
    entropy: Tensor  # of the distribution that token t is drawn from, in nats


def evaluate(
    policy: PeftModel, value_head: nn.Linear, sequence_ids: Tensor, attention_mask: Tensor, length: int, args: Settings
) -> Evaluation:
    """One forward pass over prompts (padded on the left) and responses, [B, P + T]; `length` is T."""
    # Padding pushes a row to the right; a token's position is the number of real tokens before it, as in `generate`.
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)  # [B, P + T]
    out = policy(
        input_ids=sequence_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False,
        output_hidden_states=True, logits_to_keep=length + 1,
    )  # fmt: skip
    # Token t is predicted at the token before it; the first of a response at the end of its prompt.
    logits = out.logits[:, :-1] / args.temperature  # [B, T, V]
    features = out.hidden_states[-1][:, -length - 1 : -1]  # [B, T, H]
    return Evaluation(
        logprobs=logprobs_from_logits(logits, sequence_ids[:, -length:]),
        values=value_head(features).squeeze(-1),
        entropy=entropy_from_logits(logits),
    )


# --- The algorithm ----------------------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """What an update learns from. Its rows are responses; a minibatch is a rollout of some of them."""

    sequence_ids: Tensor  # [B, P + T]
    attention_mask: Tensor  # [B, P + T]
    response_mask: Tensor  # [B, T] True from the first response token through EOS: the only loss mask there is
    scores: Tensor  # [B] from the reward
    kl: Tensor  # [B, T] estimate of KL(policy || reference)
    entropy: Tensor  # [B, T]
    old_logprobs: Tensor  # [B, T] under the policy that sampled
    old_values: Tensor  # [B, T] the critic's, before the update
    advantages: Tensor  # [B, T] by how much a token was better than what the critic expected
    returns: Tensor  # [B, T] what the critic should have said


def sample(
    policy: PeftModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], args: Settings
) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """One response to each prompt: (sequence_ids, attention_mask, response_mask, texts)."""
    # `generate` appends on the right, so prompts of different lengths are padded on the left.
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(DEVICE)  # [B, P]
    sequence_ids = policy.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=args.max_new_tokens,
        do_sample=True, temperature=args.temperature, top_k=0, top_p=1.0,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # [B, P + T]; T is the longest response  # fmt: skip
    response_ids = sequence_ids[:, batch.input_ids.shape[1] :]  # [B, T]
    is_eos = (response_ids == tokenizer.eos_token_id).long()
    response_mask = is_eos.cumsum(-1) - is_eos == 0  # no EOS before this token; EOS itself is an action too
    attention_mask = torch.cat([batch.attention_mask, response_mask], dim=-1)
    return sequence_ids, attention_mask, response_mask, tokenizer.batch_decode(response_ids, skip_special_tokens=True)


def assign_credit(
    scores: Tensor, old: Evaluation, ref_logprobs: Tensor, response_mask: Tensor, args: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """From a score per response [B] to (kl, advantages, returns) per token, each [B, T]."""
    # KL_t = log pi(token) - log pi_ref(token): one sample of the KL, which is its mean under the policy.
    kl = kl_estimate(old.logprobs, ref_logprobs, "k1")
    # r_t = -kl_coef KL_t, plus the score on the last token, EOS or not: staying close is part of the reward.
    rewards = kl_shaped_rewards(scores, kl, response_mask, args.kl_coef)
    # delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  return_t = A_t + V_t
    advantages, returns = gae(rewards, old.values, response_mask, args.gamma, args.gae_lambda)
    # Mean 0 and variance 1 over the tokens of the batch: the step no longer depends on the scale of the scores.
    return kl, whiten(advantages, response_mask), returns


@torch.no_grad()
def collect(
    policy: PeftModel, value_head: nn.Linear, tokenizer: PreTrainedTokenizerFast, prompts: list[str], args: Settings
) -> tuple[Rollout, list[str]]:
    """Sample, score, evaluate, assign credit: the rollout and the texts of its responses."""
    sequence_ids, attention_mask, response_mask, texts = sample(policy, tokenizer, prompts, args)
    scores = torch.tensor([float(reward(*pair)) for pair in zip(prompts, texts, strict=True)], device=DEVICE)  # [B]
    given = sequence_ids, attention_mask, response_mask.shape[1], args
    old = evaluate(policy, value_head, *given)
    with policy.disable_adapter():
        ref_logprobs = evaluate(policy, value_head, *given).logprobs
    kl, advantages, returns = assign_credit(scores, old, ref_logprobs, response_mask, args)
    ids_and_masks = sequence_ids, attention_mask, response_mask
    return Rollout(*ids_and_masks, scores, kl, old.entropy, old.logprobs, old.values, advantages, returns), texts


def ppo_update(
    policy: PeftModel, value_head: nn.Linear, optimizer: torch.optim.Optimizer, rollout: Rollout, args: Settings
) -> dict[str, float]:
    """The clipped epochs: a few passes over the rollout in shuffled minibatches; means of the statistics."""
    steps = []
    for _ in range(args.num_ppo_epochs):
        for index in torch.randperm(len(rollout.scores)).split(args.mini_batch_size):
            batch = Rollout(*(x[index.to(DEVICE)] for x in rollout))
            mask = batch.response_mask
            now = evaluate(policy, value_head, batch.sequence_ids, batch.attention_mask, mask.shape[1], args)
            # ratio = pi / pi_old;  mean of max(-A ratio, -A clip(ratio, 1 - clip_range, 1 + clip_range))
            policy_loss, stats = clipped_policy_loss(
                now.logprobs, batch.old_logprobs, batch.advantages, mask, args.clip_range
            )
            # mean of 1/2 max((V - return)^2, (V_clipped - return)^2), V_clipped within value_clip_range of V_old
            value_loss, _ = clipped_value_loss(now.values, batch.old_values, batch.returns, mask, args.value_clip_range)
            optimizer.zero_grad()
            (policy_loss + args.vf_coef * value_loss).backward()
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], args.max_grad_norm)
            optimizer.step()
            steps.append(stats | {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()})
    return {name: torch.stack([step[name] for step in steps]).mean().item() for name in steps[0]}


def curves(rollout: Rollout) -> dict[str, float]:
    """How things stood before the update. In the first one the adapters are still 0, and so is the KL."""
    mask = rollout.response_mask
    return {
        "score": rollout.scores.mean().item(),
        "kl": torch.where(mask, rollout.kl, 0.0).sum(-1).mean().item(),  # nats per response
        "length": mask.sum(-1).float().mean().item(),
        "entropy": masked_mean(rollout.entropy, mask).item(),
        # 1 - Var(return - V) / Var(return): 0 for a critic that says the same of everything, 1 for one that knows
        "explained_variance": explained_variance(rollout.old_values, rollout.returns, mask).item(),
    }


COLUMNS = ("score", "kl", "length", "entropy", "explained_variance", "clip_fraction", "approx_kl")


def main(args: Settings) -> None:
    if args.mini_batch_size > args.batch_size:
        raise SystemExit(f"mini_batch_size {args.mini_batch_size} is larger than batch_size {args.batch_size}")
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    model, tokenizer = load_model(args.model) if args.model else make_model(args.max_new_tokens)
    policy, value_head = add_adapters(model, args.lora_r)
    optimizer = make_optimizer(policy, value_head, args.learning_rate)
    print("update", *(f"{name:>{max(8, len(name))}}" for name in COLUMNS))
    for update in range(1, args.num_updates + 1):
        prompts = random.choices(PROMPTS, k=args.batch_size)
        rollout, texts = collect(policy, value_head, tokenizer, prompts, args)
        metrics = curves(rollout) | ppo_update(policy, value_head, optimizer, rollout, args)
        print(f"{update:6}", *(f"{metrics[name]:{max(8, len(name))}.3f}" for name in COLUMNS), flush=True)
        if update in (1, args.num_updates):
            print(*(f"       {p} ... {text}" for p, text in list(zip(prompts, texts, strict=True))[:3]), sep="\n")


if __name__ == "__main__":
    main(auto_cli(Settings))
