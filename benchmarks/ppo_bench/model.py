"""The model, tokenizer and prompts that both sides read: random weights, and response lengths that are known."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppo_bench.settings import Setting
from rlhf.cli import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PROMPTS_FILE = "prompts.jsonl"
EOS_ID = 0
BATCHES = 50
"""Of prompts: more than there are updates. In the last batch of a pass accelerate ends gradient accumulation, and TRL
makes an optimizer step of every micro-batch."""
NEVER, SURELY = -30.0, 30.0
"""Log-odds of EOS."""

MARK = 1e-3  # small, so that layer norms hardly notice the channel that carries it


def write_workload(setting: Setting, folder: Path, dtype: str = "float32") -> None:
    """Model, tokenizer and prompts in one folder; every prompt has exactly `prompt_tokens` tokens.

    Weights are stored in the type in which they are used, as published ones are: converting them takes memory.
    """
    quiet_libraries()
    torch.manual_seed(0)
    model = random_model(setting)
    schedule_end(model, setting)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    word_tokenizer(setting.vocabulary).save_pretrained(folder)
    draw = torch.randint(1, setting.vocabulary, (BATCHES * setting.batch, setting.prompt_tokens))
    rows = [{"prompt": " ".join(f"w{token}" for token in prompt)} for prompt in draw.tolist()]
    (folder / PROMPTS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def random_model(setting: Setting) -> "PreTrainedModel":
    """A GPT-2, Llama or Qwen3 of the setting's shape as transformers initializes it, without dropout."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

    ids = {"bos_token_id": None, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID, "vocab_size": setting.vocabulary}
    n_positions = setting.prompt_tokens + setting.response_tokens
    if setting.architecture == "gpt2":
        shape = {"n_embd": setting.hidden, "n_layer": setting.layers, "n_head": setting.heads}
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(n_positions=n_positions, **shape, **dropout, **ids)
    else:
        config = (LlamaConfig if setting.architecture == "llama" else Qwen3Config)(
            max_position_embeddings=n_positions,
            hidden_size=setting.hidden,
            intermediate_size=setting.feed_forward,
            num_hidden_layers=setting.layers,
            num_attention_heads=setting.heads,
            num_key_value_heads=setting.kv_heads,
            head_dim=setting.hidden // setting.heads,
            tie_word_embeddings=True,
            **ids,
        )
    return AutoModelForCausalLM.from_config(config)


@torch.no_grad()
def schedule_end(model: "PreTrainedModel", setting: Setting) -> None:
    """Make the probability of EOS a function of the position alone, so that neither side has to be interfered with.

    Two channels of the residual stream carry a mark and its opposite, and no layer writes to them; the LM head's row
    for EOS reads their difference, from which the mean that layer norms subtract cancels.
    """
    log_odds = end_log_odds(setting)
    marks = MARK * torch.stack([log_odds, -log_odds], dim=1)  # [P + T, 2]
    embeddings = model.get_input_embeddings().weight  # the LM head too: they are tied
    if setting.architecture == "gpt2":
        model.transformer.wpe.weight[:, :2] = marks
        embeddings[:, :2] = 0.0
        for block in model.transformer.h:
            for writer in (block.attn.c_proj, block.mlp.c_proj):  # Conv1D: [in, out]
                writer.weight[:, :2] = 0.0
                writer.bias[:2] = 0.0
    else:
        assert setting.shortest_response is None, "only learned positions can carry a schedule"
        embeddings[:, :2] = marks[0]
        for block in model.model.layers:
            block.self_attn.o_proj.weight[:2] = 0.0
            block.mlp.down_proj.weight[:2] = 0.0
    ids = torch.randint(1, setting.vocabulary, (8, len(log_odds)))
    features = model.base_model(input_ids=ids).last_hidden_state.float()
    seen = features[..., 0] - features[..., 1]
    scale = (log_odds * seen).sum() / (seen * seen).sum()
    embeddings[EOS_ID] = 0.0
    embeddings[EOS_ID, :2] = torch.stack([scale, -scale])


def end_log_odds(setting: Setting) -> Tensor:
    """Logit of EOS at every position, [P + T], that makes lengths uniform from the shortest to the longest."""
    longest, shortest = setting.response_tokens, setting.shortest_response

    def at(position: int) -> float:
        length = position - setting.prompt_tokens + 2  # of the response, if its next token is the last
        if shortest is None or length < shortest:
            return NEVER
        left = longest - length
        # hazard 1 / (left + 1): odds 1 / left against the other tokens, whose logits are near 0
        return SURELY if left <= 0 else math.log(setting.vocabulary / left)

    return torch.tensor([at(position) for position in range(setting.prompt_tokens + longest)])


def response_lengths(responses: Tensor) -> list[int]:
    """Tokens of each response, [B, T], through its first EOS."""
    ended = (responses == EOS_ID).long()
    return ((ended.cumsum(-1) - ended) == 0).sum(-1).tolist()


def word_tokenizer(size: int) -> "PreTrainedTokenizerFast":
    """Words w1, w2, ... and EOS, which also pads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS_ID} | {f"w{number}": number for number in range(1, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", chat_template=template
    )
