"""minimind's PPO (trainer/train_ppo.py of https://github.com/jingyaogong/minimind) on our settings and weights.

It is no package: it is imported from the folder of a clone. Nothing of it is changed; the globals that its loop reads
are set as its main block sets them, and a reward model that costs nothing takes the place of InternLM2.
"""

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from ppo_bench.laps import Laps
from ppo_bench.model import PROMPTS_FILE, response_lengths
from rlhf.cli import quiet_libraries
from rlhf.config import PPOConfig
from rlhf.runs.files import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCRIPT = Path("trainer") / "train_ppo.py"
OF_THE_SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
)
"""What its config and that of Qwen3 call by the same name."""

EQUAL_LOGITS = 1e-4
"""Largest difference between the logits of the two implementations, in float32."""


def train_minimind(sources: Path, config: PPOConfig, laps: Laps) -> None:
    """Its `ppo_train_epoch`: all weights of an actor and of a critic, and a frozen reference."""
    from torch.optim.lr_scheduler import CosineAnnealingLR
    from transformers import AutoTokenizer

    script, workload = imported(sources, "trainer.train_ppo"), Path(str(config.model.name_or_path))
    lm_config = shape(sources, workload)
    actor, critic, reference = networks(script, lm_config, workload)
    critic.register_forward_pre_hook(lambda *_: end_of_scoring(laps))
    actor_optimizer = torch.optim.AdamW(actor.parameters(), lr=config.learning_rate)
    critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=config.critic_learning_rate)
    schedulers = [CosineAnnealingLR(each, T_max=config.num_updates) for each in (actor_optimizer, critic_optimizer)]
    tokenizer, autocast = AutoTokenizer.from_pretrained(workload), nullcontext()  # as its main block has it on a CPU
    vars(script).update(
        args=arguments(config),
        lm_config=lm_config,
        tokenizer=tokenizer,
        autocast_ctx=autocast,
        actor_model=actor,
        critic_model=critic,
        actor_optimizer=actor_optimizer,
        critic_optimizer=critic_optimizer,
    )
    engine = script.create_rollout_engine("torch", actor, tokenizer, "cpu", autocast)
    clock_rollout(engine, laps)
    batches = clocked_batches([row["prompt"] for row in read_jsonl(workload / PROMPTS_FILE)], config.batch_size, laps)
    script.ppo_train_epoch(0, batches, config.num_updates, engine, reference, *schedulers, NoReward())


def networks(script: ModuleType, lm_config: Any, workload: Path) -> list[torch.nn.Module]:
    """Actor, critic and reference, with the weights of the workload."""
    weights = load_qwen3(workload).state_dict()
    made = [script.MiniMindForCausalLM(lm_config), script.CriticModel(lm_config), script.MiniMindForCausalLM(lm_config)]
    _, critic, reference = made
    for network in made:
        network.load_state_dict(weights, strict=network is not critic)  # whose value head is new
    reference.eval().requires_grad_(False)
    return made


def arguments(config: PPOConfig) -> SimpleNamespace:
    """What its command line would hold. It has no micro-batches: smaller minibatches, accumulated, are as much work."""
    return SimpleNamespace(
        device="cpu",
        epochs=1,
        debug_mode=False,
        debug_log_ratio=False,
        max_seq_len=config.data.max_prompt_tokens,
        max_gen_len=config.sampling.max_new_tokens,
        ppo_update_iters=config.num_ppo_epochs,
        mini_batch_size=config.micro_batch_size,
        accumulation_steps=config.mini_batch_size // config.micro_batch_size,
        early_stop_kl=math.inf if config.target_kl is None else config.target_kl,
        clip_epsilon=config.clip_range,
        cliprange_value=config.value_clip_range,
        vf_coef=config.vf_coef,
        kl_coef=config.kl_coef,
        gamma=config.gamma,
        lam=config.gae_lambda,
        grad_clip=config.max_grad_norm,
        save_interval=config.num_updates,  # ours saves every ten updates, later than the benchmark looks
    )


class NoReward:
    """In the place of its reward model. What its script adds to the score by itself, it still computes."""

    def get_score(self, messages: list[dict[str, str]], response: str) -> float:
        return 0.0


def clock_rollout(engine: Any, laps: Laps) -> None:
    """Note when its engine has sampled; the old log-probabilities are part of that."""
    rollout = engine.rollout

    def clocked(**arguments: Any) -> Any:
        result = rollout(**arguments)
        laps.lap("rollout")
        laps.lengths = response_lengths(result.completion_ids)
        return result

    engine.rollout = clocked


def end_of_scoring(laps: Laps) -> None:
    """The first differentiable pass begins the update: it is the critic's."""
    if torch.is_grad_enabled() and "scoring" not in laps.cpu:
        laps.lap("scoring")


def clocked_batches(prompts: list[str], size: int, laps: Laps) -> Iterator[dict[str, list[str]]]:
    """Batches as its loader gives them, without end; asking for one ends the update before."""
    for start in cycle(range(0, len(prompts), size)):
        yield {"prompt": prompts[start : start + size]}
        laps.lap("update")
        laps.report()


def logit_difference(sources: Path, workload: Path) -> float:
    """Largest difference between its logits and those of transformers for the same weights; raises if it is large."""
    quiet_libraries()
    ours = load_qwen3(workload)
    theirs = imported(sources, "model.model_minimind").MiniMindForCausalLM(shape(sources, workload))
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(1, ours.config.vocab_size, (2, ours.config.max_position_embeddings))
    with torch.no_grad():
        difference = (ours(ids).logits - theirs(ids).logits).abs().max().item()
    if difference > EQUAL_LOGITS:
        raise RuntimeError(f"logits of minimind and of transformers differ by {difference:.2e}; not the same model")
    return difference


def load_qwen3(workload: Path) -> "PreTrainedModel":
    """The Qwen3 of the workload, with the names of weights that minimind has too (its scripts/convert_model.py)."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(workload, dtype=torch.float32)


def shape(sources: Path, workload: Path) -> Any:
    """Its config for the model of the workload."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(workload)
    named = {name: getattr(config, name) for name in OF_THE_SHAPE}
    theta = config.rope_parameters["rope_theta"]
    return imported(sources, "model.model_minimind").MiniMindConfig(rope_theta=theta, **named)


def imported(sources: Path, name: str) -> ModuleType:
    """A module of its folder."""
    if str(sources) not in sys.path:
        sys.path.insert(0, str(sources))
    return importlib.import_module(name)


def commit(sources: Path) -> str:
    """Which commit of it is checked out, and its date."""
    log = ["git", "-C", str(sources), "log", "-1", "--format=%h (%cs)"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
