"""PPO with TRL's own trainer (trl.experimental.ppo) on the settings of this library, for comparison."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.data.examples import TokenizedExample, collate_columns, load_training, tokenize
from rlhf.models.load import load_causal_lm, lora_adapters
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import save_policy
from rlhf.policy.policy import Policy
from rlhf.rewards import RewardSum
from rlhf.runs.files import staged

if TYPE_CHECKING:
    import peft
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.ppo import PPOTrainer as TRLTrainer

LearningRates = tuple[float, float]
"""Of policy and value model."""


class PythonReward(torch.nn.Module):
    """A `RewardSum` in the shape of a TRL reward model: backbone -> hidden states -> score of every token.

    Every token of a row gets the row's score; TRL reads it at the last one.
    """

    base_model_prefix = "backbone"

    def __init__(
        self, rewards: RewardSum, tokenizer: "PreTrainedTokenizerFast", prompts: list[TokenizedExample]
    ) -> None:
        super().__init__()
        self.rewards, self.tokenizer = rewards, tokenizer
        self.prompts = {prompt.example.prompt: prompt for prompt in prompts}
        self.lengths: list[float] = []  # mean response length of each batch, in tokens

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """Scores as the last hidden state, [B, L, 1]."""
        rows = [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask, strict=True)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        split = [text.partition("\n") for text in texts]  # a prompt is one line
        questions, responses = [question for question, _, _ in split], [response for _, _, response in split]
        prompts = [self.prompts[question] for question in questions]
        prompt_tokens = sum(len(prompt.prompt_ids) for prompt in prompts)
        self.lengths.append((int(attention_mask.sum()) - prompt_tokens) / len(prompts))
        columns = collate_columns([prompt.example for prompt in prompts])
        scores = torch.tensor(self.rewards(questions, responses, columns).total)
        return SimpleNamespace(hidden_states=[scores[:, None, None].expand(*input_ids.shape, 1)])

    def score(self, hidden_states: Tensor) -> Tensor:
        """They are the scores already."""
        return hidden_states


def train_with_trl(config: PPOConfig, learning_rates: LearningRates, folder: Path) -> None:
    """Train with TRL, write the policy in our layout, and beside it the metrics under our names."""
    import datasets
    import peft
    import transformers

    transformers.set_seed(config.seed)
    tokenizer = load_tokenizer(str(config.model.name_or_path))
    base = load_causal_lm(config.model)
    examples = load_training(config.data)
    prompts = tokenize(examples, tokenizer, config.data, context_length(base))
    dataset = datasets.Dataset.from_list([{"input_ids": prompt.prompt_ids} for prompt in prompts])
    reward_model = PythonReward(RewardSum.from_specs(config.rewards), tokenizer, prompts)
    assert config.lora is not None
    policy = peft.get_peft_model(base, lora_adapters(config.lora, base))
    trainer = trl_trainer(config, learning_rates, policy, reward_model, dataset)
    trainer.train()
    logged = zip(trainer.state.log_history, reward_model.lengths, strict=True)
    lines = [metrics_line(row, length, step) for step, (row, length) in enumerate(logged, start=1)]
    (folder.parent / "metrics.jsonl").write_text("".join(lines))
    write_policy(config, policy, folder)


def metrics_line(logged: dict[str, float], length: float, step: int) -> str:
    """What TRL logged of one update, under the names of this library."""
    names = {"objective/score": "objective/scores", "objective/kl": "objective/kl"}
    row = {"step": step, "response/length": length} | {ours: logged[theirs] for ours, theirs in names.items()}
    return json.dumps(row) + "\n"


def trl_trainer(
    config: PPOConfig,
    learning_rates: LearningRates,
    policy: "peft.PeftModel",
    reward_model: PythonReward,
    prompts: "Dataset",
) -> "TRLTrainer":
    """TRL's trainer on our settings, with a value model of its own as in TRL's examples."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig as TRLConfig
    from trl.experimental.ppo import PPOTrainer as TRLTrainer

    reward_model.tokenizer.padding_side = "left"
    value_model = AutoModelForSequenceClassification.from_pretrained(
        config.model.name_or_path, num_labels=1, dtype=getattr(torch, config.model.dtype)
    )
    networks = ([p for p in policy.parameters() if p.requires_grad], list(value_model.parameters()))
    groups = [{"params": network, "lr": lr} for network, lr in zip(networks, learning_rates, strict=True)]
    # with several minibatches gradient accumulation would turn those of an epoch into a single optimizer step
    n_micro_batches = config.batch_size // config.micro_batch_size if config.mini_batch_size == config.batch_size else 1
    arguments = TRLConfig(
        output_dir=config.output_dir,
        total_episodes=config.num_updates * config.batch_size,
        per_device_train_batch_size=config.batch_size // n_micro_batches,
        gradient_accumulation_steps=n_micro_batches,
        num_mini_batches=config.batch_size // config.mini_batch_size,
        num_ppo_epochs=config.num_ppo_epochs,
        local_rollout_forward_batch_size=config.batch_size,
        response_length=config.sampling.max_new_tokens,
        temperature=config.sampling.temperature,
        stop_token="eos",
        kl_coef=config.kl_coef,
        vf_coef=config.vf_coef,
        lam=config.gae_lambda,
        seed=config.seed,
        bf16=False,
        gradient_checkpointing=config.model.gradient_checkpointing,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return TRLTrainer(
        args=arguments,
        processing_class=reward_model.tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=prompts,
        eval_dataset=prompts.select(range(1)),
        optimizers=(torch.optim.AdamW(groups, weight_decay=0.0), None),
    )


def write_policy(config: PPOConfig, trained: "peft.PeftModel", folder: Path) -> None:
    """TRL's adapters as a policy of ours, so that both are measured by the same code."""
    import peft

    assert config.lora is not None
    policy = Policy.with_lora(load_causal_lm(config.model), config.lora, critic="detached")
    weights = peft.get_peft_model_state_dict(trained)
    peft.set_peft_model_state_dict(policy.wrapper.pretrained_model, weights)
    with staged(folder) as staging:
        save_policy(policy, staging)
