"""The PPO stage: from a config to a trained policy on disk."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import PPOConfig
from rlhf.config.checks import require
from rlhf.data.examples import (
    TokenizedExample,
    check_fits,
    load_held_out,
    load_training,
    tokenize,
    tokenize_each,
    warn_of_leak,
)
from rlhf.data.parsing import parse_row
from rlhf.data.prompts import PromptSource, PromptStream, ShuffledPasses
from rlhf.environments.episodes import on_its_own
from rlhf.environments.returns import reward_fn
from rlhf.evaluation.held_out import HeldOut
from rlhf.evaluation.policy import held_out_policy
from rlhf.fast.heap import return_large_blocks
from rlhf.models.divided import load_beside, load_divided, mesh_of
from rlhf.models.load import load_causal_lm
from rlhf.models.precision import chooses_dtype
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer
from rlhf.parallel.launch import (
    engine,
    join_processes,
    require_fsdp2_or_ddp,
    require_no_deepspeed,
    require_plain_precision,
    said_once,
)
from rlhf.parallel.ranks import Ranks, require_same_weights
from rlhf.policy.earlier_critic import Adapters, earlier_adapters, take_critic
from rlhf.policy.files import is_policy_folder
from rlhf.policy.policy import Policy
from rlhf.policy.sharding import find_divided
from rlhf.ppo.loop import train
from rlhf.ppo.state import POLICY_FOLDER
from rlhf.ppo.trainer import Callback, PPOTrainer
from rlhf.rewards import RewardSum
from rlhf.sampling.vllm_engine import require_vllm
from rlhf.stages.evaluate import EPISODES
from rlhf.stages.frame import run_once

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@chooses_dtype
def run_ppo(config: PPOConfig, prompts: Iterable[Any] | None = None, callbacks: Sequence[Callback] = ()) -> Path:
    """Train a policy and write it; returns its folder.

    A finished run with the same config is not repeated, an interrupted one goes on from its last checkpoint.

    Args:
        config: The settings.
        prompts: Rows like those of a data file, made on the fly, instead of those of `config.data`; see PromptStream.
        callbacks: Called after each phase of every update.
    """
    rewards = reward_fn(config.rewards, config.environment)  # first: a misspelled reward must not cost a model load
    accelerator = launch(config)

    def train_policy(folder: Path) -> None:
        trainer = build_trainer(config, rewards, accelerator, prompts, callbacks)
        train(trainer, folder, held_out_of(trainer, folder))
        if trainer.warming_up and accelerator.is_main_process:
            print(
                "all updates were critic warm-up (value_warmup): the policy was not trained",
                file=sys.stderr,
                flush=True,
            )

    return run_once(config, Ranks.of(accelerator), POLICY_FOLDER, train_policy)


@said_once()
def launch(config: PPOConfig) -> "Accelerator":
    """Accelerate's view of this process, among the others that were launched.

    Raises UserError where it would not do what the config, or accelerate's own, asks for; see also `join_processes`.
    """
    from accelerate import Accelerator

    if config.generation.engine == "vllm":
        require_vllm()
    require_plain_precision()
    require_no_deepspeed()
    require_fsdp2_or_ddp()
    join_processes(config.num_processes)
    accelerator = Accelerator()
    n_prompts = config.batch_size // config.num_generations
    require(
        n_prompts >= accelerator.num_processes,
        f"batch_size {config.batch_size} is {n_prompts} prompts, too few for {accelerator.num_processes} processes",
    )
    return accelerator


@chooses_dtype
def build_trainer(
    config: PPOConfig,
    rewards: RewardSum,
    accelerator: "Accelerator | None" = None,
    prompts: Iterable[Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> PPOTrainer:
    """Load data, tokenizer and model, and put the trainer together; for the arguments see `run_ppo`."""
    import transformers

    if prompts is None and config.environment is None:
        config.data.require_train()
    accelerator = accelerator or launch(config)
    transformers.set_seed(config.seed)  # before the adapters are drawn, alike on all ranks
    ranks = Ranks.of(accelerator)
    divided, in_full = engine() == "fsdp", config.lora is None
    model = load_divided(config.model, ranks, trained=in_full) if divided else load_causal_lm(config.model)
    if config.fast_paths:
        return_large_blocks(model.get_output_embeddings().weight.shape[-1])
    tokenizer = load_tokenizer(str(config.model.name_or_path), config.model.trust_remote_code, config.model.gguf_file)
    shuffler = torch.Generator().manual_seed(config.seed)
    source = prompt_source(config, tokenizer, context_length(model), shuffler, prompts)
    policy = build_policy(config, model, ranks)
    if accelerator.is_main_process and is_policy_folder(str(config.model.name_or_path)):
        critic = (
            "its critic goes on" if config.keep_critic else "its critic is left behind (keep_critic: true takes it)"
        )
        print(f"the reference is the policy in {config.model.name_or_path}; {critic}", flush=True)
    require_same_weights(ranks, policy)
    policy.divided_trunks = find_divided(policy)
    return PPOTrainer(config, policy, tokenizer, rewards, source, shuffler, accelerator, callbacks)


def held_out_of(trainer: PPOTrainer, folder: Path) -> HeldOut:
    """What measures the policy along the run; the prompts are those of `rlhf evaluate`."""
    config, prompts = trainer.config, []
    if config.evaluation is not None and config.environment is not None and config.data.eval is None:
        prompts = trainer.seeded([on_its_own(config.environment)] * (config.evaluation.prompts or EPISODES), "held out")
    elif config.evaluation is not None:
        context, n_new = context_length(trainer.policy.language_model), config.sampling.max_new_tokens
        data = config.data if config.environment is None else replace(config.data, as_chat=True)
        prompts = tokenize(load_held_out(data), trainer.tokenizer, data, context, n_new)
        prompts = trainer.seeded(prompts[: config.evaluation.prompts], "held out")
        check_fits(prompts, n_new, context)
    return held_out_policy(trainer, prompts, folder)


def build_policy(config: PPOConfig, model: "PreTrainedModel", ranks: Ranks | None = None) -> Policy:
    """New adapters and a critic, new or an earlier run's, on a base; with `lora: null` a critic on the model itself.

    The ranks are those that a model is divided among, if it is.
    """
    name, of_critic = str(config.model.name_or_path), Adapters(None, config.critic_layers)
    if config.keep_critic:
        of_critic = earlier_adapters(name, config.critic, config.critic_layers) or of_critic
    checkpointing = config.model.gradient_checkpointing
    if config.lora is None:
        beside: tuple[Any, Any] = (None, None)
        if ranks is not None and mesh_of(model) is not None:
            beside = load_beside(model, config.model, ranks, with_trunk=config.critic == "separate")
        policy = Policy.in_full(model, config.critic, checkpointing, config.fast_paths, *beside)
    else:
        policy = Policy.with_lora(model, config.lora, config.critic, checkpointing, config.fast_paths, *of_critic)
    if config.keep_critic:
        take_critic(policy, name)
    return policy


def load_prompts(config: PPOConfig, tokenizer: "PreTrainedTokenizerFast", context: int) -> list[TokenizedExample]:
    """The training prompts, checked to leave room for a whole response."""
    examples = load_training(config.data)
    warn_of_leak(examples, load_held_out(config.data))
    prompts = tokenize(examples, tokenizer, config.data, context, config.sampling.max_new_tokens)
    check_fits(prompts, config.sampling.max_new_tokens, context)
    return prompts


def prompt_source(
    config: PPOConfig,
    tokenizer: "PreTrainedTokenizerFast",
    context: int,
    shuffler: torch.Generator,
    rows: Iterable[Any] | None,
) -> PromptSource:
    """The data's prompts in shuffled passes, or those of `rows`; with an environment they are conversations.

    An environment without data begins on its own.
    """
    environment = config.environment
    if environment is not None:
        if rows is None and config.data.train is None:
            return ShuffledPasses([on_its_own(environment)], shuffler)
        config = replace(config, data=replace(config.data, as_chat=True))
    if rows is None:
        return ShuffledPasses(load_prompts(config, tokenizer, context), shuffler)

    def prompt_of(row: Any, origin: str) -> TokenizedExample | None:
        example, n_new = parse_row(row, origin, config.data.columns), config.sampling.max_new_tokens
        [prompt] = tokenize_each([example], tokenizer, config.data, context, n_new)
        check_fits([prompt] if prompt else [], n_new, context)
        return prompt

    return PromptStream(rows, prompt_of)
