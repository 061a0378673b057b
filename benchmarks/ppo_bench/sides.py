"""The sides, each as the main function of a process of its own: our stage, TRL's trainer, minimind's script."""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl_ppo import PythonReward, trl_trainer

from ppo_bench.laps import Laps
from ppo_bench.minimind import train_minimind
from ppo_bench.model import PROMPTS_FILE, response_lengths
from ppo_bench.settings import Setting
from rlhf.cli import quiet_libraries
from rlhf.config import DataConfig, InspectConfig, LoraConfig, ModelConfig, PPOConfig, SamplingConfig, TrackingConfig
from rlhf.config.critic import Critic
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSpec, RewardSum

ENDLESS = 100_000
"""Updates; the comparing process says when it has seen enough."""

TINY_STEP = 1e-7
"""Learning rate: as much work as any other, and the lengths of the responses stay what they are."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Who does the work and on what.

    Attributes:
        name: As it is printed.
        trainer: rlhf, trl or minimind.
        setting: The work.
        workload: Folder of model, tokenizer and prompts.
        dtype: Of the frozen weights (TRL: of the value model too).
        critic: Ours; the others always have a value model of their own. Ours trains all weights with `separate`, else
            adapters.
        threads: Of torch.
        sources: Folder of minimind, where that is the trainer.
    """

    name: str
    trainer: str
    setting: Setting
    workload: Path
    dtype: str
    critic: Critic
    threads: int
    sources: Path = Path()

    @property
    def config(self) -> PPOConfig:
        """The stage's settings, from which TRL's are made too."""
        work = self.setting
        return PPOConfig(
            output_dir=str(self.workload / "runs" / self.name),
            model=ModelConfig(
                name_or_path=str(self.workload),
                dtype=self.dtype,  # type: ignore[arg-type]
                gradient_checkpointing=work.gradient_checkpointing,
            ),
            data=DataConfig(train=str(self.workload / PROMPTS_FILE), max_prompt_tokens=work.prompt_tokens),
            rewards=[RewardSpec(path="length", args={"maximum": 10**6})],
            lora=None if self.critic == "separate" else LoraConfig(r=16),
            sampling=SamplingConfig(max_new_tokens=work.response_tokens),
            num_updates=ENDLESS,
            batch_size=work.batch,
            num_generations=work.num_generations,
            num_ppo_epochs=work.epochs,
            mini_batch_size=work.minibatch,
            micro_batch_size=work.micro_batch,
            learning_rate=TINY_STEP,
            critic_learning_rate=TINY_STEP,
            lr_schedule="constant",
            critic=self.critic,
            inspect=InspectConfig(prompts=0),
            tracking=TrackingConfig(wandb="disabled", tensorboard=False),
        )


def work(side: Side, connection: Connection) -> None:
    """Train until told to stop; what the libraries print goes nowhere, what went wrong to standard error."""
    torch.set_num_threads(side.threads)
    trainers: dict[str, Callable[[PPOConfig, Laps], None]]
    trainers = {"rlhf": train_ours, "trl": train_theirs, "minimind": partial(train_minimind, side.sources)}
    train = trainers[side.trainer]
    with os.fdopen(os.dup(2), "w") as terminal, open(os.devnull, "w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
        try:
            train(side.config, Laps(connection))
        except Exception:
            traceback.print_exc(file=terminal)
            raise


def estimate_memory(side: Side) -> int:
    """The peak that `rlhf doctor` expects of our side, in bytes."""
    from rlhf.doctor.footprint import footprint
    from rlhf.stages.ppo import build_trainer

    quiet_libraries()
    trainer = build_trainer(side.config, RewardSum.from_specs(side.config.rewards))
    return footprint(side.config, trainer.policy, side.setting.prompt_tokens).peak


class Clocked(Callback):
    """The phases of our update."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def after_sampling(self, trainer: Any, responses: Any) -> None:
        self.laps.lap("rollout")

    def after_advantages(self, trainer: Any, rollout: Any) -> None:
        self.laps.lap("scoring")
        self.laps.lengths = rollout.lengths.tolist()

    def after_update(self, trainer: Any, update: Any) -> None:
        self.laps.lap("update")
        self.laps.report()


def train_ours(config: PPOConfig, laps: Laps) -> None:
    """The stage as `rlhf ppo` runs it."""
    from rlhf.stages.ppo import run_ppo

    run_ppo(config, callbacks=[Clocked(laps)])


def train_theirs(config: PPOConfig, laps: Laps) -> None:
    """TRL's `PPOTrainer.train`."""
    import datasets
    import peft
    import transformers

    from rlhf.models.load import load_causal_lm, lora_adapters
    from rlhf.models.tokenizer import load_tokenizer
    from rlhf.stages.ppo import load_prompts

    tokenizer = load_tokenizer(str(config.model.name_or_path))
    base = load_causal_lm(config.model)
    n_tokens = config.data.max_prompt_tokens + config.sampling.max_new_tokens
    prompts = load_prompts(config, tokenizer, n_tokens)
    dataset = datasets.Dataset.from_list([{"input_ids": prompt.prompt_ids} for prompt in prompts])
    rewards = RewardSum.from_specs(config.rewards)
    reward_model = TextReward(rewards, tokenizer, config.data.max_prompt_tokens)
    assert config.lora is not None
    policy = peft.get_peft_model(base, lora_adapters(config.lora, base))

    class Paused(transformers.TrainerCallback):
        """TRL calls this at the end of each of its updates."""

        def on_step_end(self, *arguments: Any, **others: Any) -> None:
            laps.lap("update")
            laps.report()

    clock_phases(laps)
    trainer = trl_trainer(config, (TINY_STEP, TINY_STEP), policy, reward_model, dataset)
    trainer.add_callback(Paused())
    trainer.train()


def clock_phases(laps: Laps) -> None:
    """Note when TRL has sampled, and when its first differentiable forward pass begins."""
    from trl.experimental.ppo import ppo_trainer

    generation, forward = ppo_trainer.batch_generation, ppo_trainer.forward

    def clocked_generation(model: Any, queries: Tensor, *arguments: Any) -> Any:
        result = generation(model, queries, *arguments)
        laps.lap("rollout")
        laps.lengths = response_lengths(result[0][:, queries.shape[1] :])
        return result

    def clocked_forward(*arguments: Any) -> Any:
        if torch.is_grad_enabled() and "scoring" not in laps.cpu:
            laps.lap("scoring")
        return forward(*arguments)

    ppo_trainer.batch_generation, ppo_trainer.forward = clocked_generation, clocked_forward


class TextReward(PythonReward):
    """Our rewards of what comes after a prompt of known length."""

    def __init__(self, rewards: RewardSum, tokenizer: Any, prompt_tokens: int) -> None:
        super().__init__(rewards, tokenizer, [])
        self.prompt_tokens = prompt_tokens

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """Scores as the last hidden state, [B, L, 1]."""
        prompts = self.tokenizer.batch_decode(input_ids[:, : self.prompt_tokens])
        responses = self.tokenizer.batch_decode(input_ids[:, self.prompt_tokens :], skip_special_tokens=True)
        scores = torch.tensor(self.rewards(prompts, responses, {}).total, device=input_ids.device)
        return SimpleNamespace(hidden_states=[scores[:, None, None].expand(*input_ids.shape, 1)])
