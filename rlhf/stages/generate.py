"""The `generate` stage: completions from a base, SFT or PPO model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import DataConfig, GenerateConfig
from rlhf.config.checks import require
from rlhf.config.secrets import mask_secrets
from rlhf.data.examples import check_fits, load_held_out, load_training, tokenize
from rlhf.data.parsing import parse_row
from rlhf.data.prompts import in_batches
from rlhf.errors import visible
from rlhf.models.precision import chooses_dtype
from rlhf.models.shape import context_length
from rlhf.policy.files import require_not_quantized, save_merged, write_stop_ids
from rlhf.policy.policy import Policy
from rlhf.runs.files import require_file, staged, write_atomically
from rlhf.sampling.responses import sample_responses
from rlhf.sampling.stopping import stop_token_ids
from rlhf.stages.evaluate import policy_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@chooses_dtype
def run_generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """Sample completions; print them, or write them as JSONL with columns prompt (all turns of it) and completion.

    With `merge_to`, also write the model with its adapters merged in, ready for `from_pretrained`.
    Raises UserError, before anything is sampled, where one of the two could not be written or would replace a model.
    """
    require_places(config)
    policy, tokenizer = policy_of(config.model, with_reference=False)
    if config.merge_to is not None:
        require_not_quantized(policy)
    context, data = context_length(policy.language_model), config.data or DataConfig()
    if config.prompt:
        data = replace(data, max_prompt_tokens=context)
        examples = [parse_row({"prompt": prompt}, "--prompt") for prompt in config.prompt]
    else:
        examples = load_training(data) if data.train else load_held_out(data)
    prompts = tokenize(examples, tokenizer, data, context, config.sampling.max_new_tokens)
    check_fits(prompts, config.sampling.max_new_tokens, context)
    repeated = [prompt for prompt in prompts for _ in range(config.num_generations)]
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    rows = []
    for batch in in_batches(repeated, config.batch_size):
        responses = sample_responses(policy, tokenizer, batch, config.sampling, generator)
        rows += [
            {"prompt": mask_secrets(list(prompt.example.turns)) or prompt.example.prompt, "completion": text}
            for prompt, text in zip(batch, responses.texts, strict=True)
        ]
    if config.output is None:
        for prompt, row in zip(repeated, rows, strict=True):  # neither may command the terminal
            print(visible(f"### {prompt.example.prompt}\n{row['completion']}\n"))
    else:
        write_atomically(Path(config.output), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{len(rows)} completions written to {config.output}")
    if config.merge_to is not None:
        write_merged(policy, tokenizer, Path(config.merge_to))
        print(f"merged model written to {config.merge_to}")
    return rows


def write_merged(policy: Policy, tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write the plain model of a policy, which stops where the policy does, and its tokenizer into a new folder."""
    with staged(folder) as staging:
        save_merged(policy, staging)
        write_stop_ids(policy, staging, stop_token_ids(policy.language_model, tokenizer))
        tokenizer.save_pretrained(staging)


def require_places(config: GenerateConfig) -> None:
    """Raise UserError where an output has no place."""
    if config.output is not None:
        require_file(Path(config.output))
    if config.merge_to is not None:
        folder = Path(config.merge_to)
        require(
            not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
            f"merge_to is {config.merge_to!r}, which is there already; name a new folder, so that no model is replaced",
        )
