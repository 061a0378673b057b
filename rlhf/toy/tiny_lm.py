"""PPO on a language model from scratch: the five steps of RLHF, small enough to watch every token."""

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlhf.maths.advantages import gae, kl_shaped_rewards
from rlhf.maths.kl import kl_estimate
from rlhf.maths.losses import clipped_policy_loss, clipped_value_loss
from rlhf.maths.tensors import explained_variance, logprobs_from_logits, masked_mean, masked_sum, whiten
from rlhf.toy import sorting
from rlhf.toy.config import TinyLMConfig
from rlhf.toy.transformer import Response, TinyLM, evaluate, sample

SUPERVISED_BATCH, SUPERVISED_LR = 128, 4e-3
TEST_PROMPTS = 512
SHOWN_UPDATE = 8  # the update whose tokens are drawn: some responses are right by then, some not yet
WITH_PENALTY, WITHOUT_PENALTY = "with KL penalty", "without KL penalty"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One PPO batch as the update sees it, [B, T] unless said otherwise."""

    response: Response
    old_logprobs: Tensor
    old_values: Tensor
    kl: Tensor
    scores: Tensor  # [B]
    rewards: Tensor
    advantages: Tensor  # whitened
    returns: Tensor
    solved: Tensor  # [B]


def train_reference(config: TinyLMConfig, stream: torch.Generator) -> TinyLM:
    """Imitate the careless demonstrations: the language model that PPO starts from and is held near."""
    torch.manual_seed(stream.initial_seed())  # for the initial weights; everything else draws from the stream
    length = 3 * config.digits + 1
    model = TinyLM(sorting.VOCABULARY, length, config.hidden, config.layers, config.heads)
    optimizer = torch.optim.Adam(model.parameters(), SUPERVISED_LR)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, config.reference_steps)
    for _ in range(config.reference_steps):
        ids, mask = sorting.demonstrations(SUPERVISED_BATCH, config.digits, stream)
        logits, _ = model(ids[:, :-1])
        targets = ids[:, config.digits + 1 :]
        loss = -masked_mean(logprobs_from_logits(logits[:, config.digits :], targets), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False)


@torch.no_grad()
def collect(config: TinyLMConfig, model: TinyLM, reference: TinyLM, kl_coef: float, stream: torch.Generator) -> Batch:
    """Steps 1 to 3: sample, score, and assign credit."""
    # 1. Sample responses; remember what policy, reference and critic thought of every token.
    asked = sorting.prompts(config.batch_size, config.digits, stream)
    response = sample(model, asked, 2 * config.digits, sorting.EOS, stream)
    mask = response.response_mask
    logits, old_values = evaluate(model, response)
    ref_logits, _ = evaluate(reference, response)
    old_logprobs = logprobs_from_logits(logits, response.response_ids)
    ref_logprobs = logprobs_from_logits(ref_logits, response.response_ids)
    # 2. Score the whole response, and charge every token for its distance from the reference.
    scores = sorting.proxy_reward(response.response_ids, mask)
    kl = kl_estimate(old_logprobs, ref_logprobs, "k1")
    rewards = kl_shaped_rewards(scores, kl, mask, kl_coef)
    # 3. Assign credit to tokens with the critic's help, and whiten.
    advantages, returns = gae(rewards, old_values, mask, gamma=1.0, gae_lambda=config.gae_lambda)
    return Batch(
        response=response, old_logprobs=old_logprobs, old_values=old_values, kl=kl, scores=scores, rewards=rewards,
        advantages=whiten(advantages, mask), returns=returns, solved=sorting.solved(asked, response.response_ids),
    )  # fmt: skip


def update(
    config: TinyLMConfig, model: TinyLM, optimizer: torch.optim.Optimizer, batch: Batch, stream: torch.Generator
) -> dict[str, float]:
    """Step 4: clipped epochs over minibatches; returns the statistics of the last minibatch."""
    stats: dict[str, float] = {}
    for _ in range(config.epochs):
        for rows in torch.randperm(config.batch_size, generator=stream).split(config.mini_batch_size):
            mask = batch.response.response_mask[rows]
            logits, values = evaluate(model, Response(ids=batch.response.ids[rows], response_mask=mask))
            logprobs = logprobs_from_logits(logits, batch.response.response_ids[rows])
            policy_loss, policy_stats = clipped_policy_loss(
                logprobs, batch.old_logprobs[rows], batch.advantages[rows], mask, config.clip_range
            )
            value_loss, _ = clipped_value_loss(
                values, batch.old_values[rows], batch.returns[rows], mask, config.value_clip_range
            )
            optimizer.zero_grad()
            (policy_loss + config.vf_coef * value_loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            stats = {name: value.item() for name, value in policy_stats.items()}
    return stats


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model after PPO, a record per update, and one batch with what its update did to the ratios."""

    model: TinyLM
    records: list[dict[str, float]]
    shown: Batch
    ratios: Tensor  # [B, T], pi_new / pi_old after all epochs on `shown`


def train(config: TinyLMConfig, reference: TinyLM, kl_coef: float, stream: torch.Generator) -> Trained:
    """PPO from the reference, with a KL penalty of kl_coef."""
    model = copy.deepcopy(reference).requires_grad_()
    value_head = [*model.value_head.parameters()]
    trunk = [p for name, p in model.named_parameters() if not name.startswith("value_head")]
    # The value head starts at random beside a trained trunk, and has to catch up.
    groups: list[dict[str, Any]] = [{"params": trunk}, {"params": value_head, "lr": config.value_head_lr}]
    optimizer = torch.optim.Adam(groups, config.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, config.updates)
    records = []
    for step in range(config.updates):
        batch = collect(config, model, reference, kl_coef, stream)
        stats = update(config, model, optimizer, batch, stream)
        schedule.step()
        records.append({"update": step, **_measure(batch), **stats})  # 5. Report.
        if step == min(SHOWN_UPDATE, config.updates - 1):
            shown = batch
            with torch.no_grad():
                logits, _ = evaluate(model, batch.response)
            ratios = (logprobs_from_logits(logits, batch.response.response_ids) - batch.old_logprobs).exp()
    return Trained(model=model, records=records, shown=shown, ratios=ratios)


def _measure(batch: Batch) -> dict[str, float]:
    mask = batch.response.response_mask
    return {
        "score": batch.scores.mean().item(),
        "solved": batch.solved.float().mean().item(),
        "kl": masked_sum(batch.kl, mask, dim=-1).mean().item(),  # nats per response
        "tokens": mask.sum(-1).float().mean().item(),
        "explained_variance": explained_variance(batch.old_values, batch.returns, mask).item(),
    }


@dataclass(frozen=True, kw_only=True)
class SeedOutcome:
    """One seed: both runs, what each model does with the same fresh prompts, an example, and the time to solve."""

    runs: dict[str, Trained]
    tests: dict[str, dict[str, float]]
    examples: dict[str, str]
    seconds: float


def run_seed(config: TinyLMConfig, seed: int) -> SeedOutcome:
    """Train the reference, then PPO with and without the KL penalty, and test all three."""
    started = time.perf_counter()
    reference = train_reference(config, torch.Generator().manual_seed(seed))
    runs = {WITH_PENALTY: train(config, reference, config.kl_coef, torch.Generator().manual_seed(seed))}
    seconds = time.perf_counter() - started
    runs[WITHOUT_PENALTY] = train(config, reference, 0.0, torch.Generator().manual_seed(seed))
    tests, examples = {}, {}
    for name, model in (("reference", reference), *((name, trained.model) for name, trained in runs.items())):
        # Prompts that training has not drawn, the same for all models.
        stream = torch.Generator().manual_seed(seed + 2**32)
        answers = collect(replace(config, batch_size=TEST_PROMPTS), model, reference, 0.0, stream)
        tests[name] = _measure(answers)
        examples[name] = sorting.text(answers.response.ids[0], config.digits)
    return SeedOutcome(runs=runs, tests=tests, examples=examples, seconds=seconds)
