"""Small models whose folders end a turn as those of Llama 3, Gemma, Phi-3 and an unhelpful author do."""

from pathlib import Path

import torch

TURNS = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + 'CLOSING\\n' }}{% endfor %}"
STYLES = {
    "llama3": ("<|eot_id|>", ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"], "<|eot_id|>", ""),
    "gemma": ("<eos>", ["<eos>", "<end_of_turn>"], "<end_of_turn>", ""),
    "phi3": ("<|endoftext|>", ["<|endoftext|>", "<|assistant|>", "<|end|>"], "<|end|>", "{{ eos_token }}"),
    "template only": ("<eos>", ["<eos>"], "<end_of_turn>", ""),
}
"""By name: the tokenizer's EOS, `eos_token_id` of generation_config.json, what the template closes a turn with, and
what it puts behind the conversation."""


def save_chat_model(folder: Path, plain: Path, style: str, says: str | None = None) -> Path:
    """The small GPT-2 in `plain` with the control tokens of a style; with `says`, it answers that token alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    eos, named, closing, behind = STYLES[style]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
    tokenizer.add_tokens(sorted({eos, *named, closing}), special_tokens=True)
    tokenizer.eos_token = eos
    tokenizer.chat_template = TURNS.replace("CLOSING", closing) + behind
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(named)
    if says is not None:
        trunk, row = model.transformer, torch.randn(model.config.n_embd)
        trunk.wte.weight.data[tokenizer.convert_tokens_to_ids(says)] = 10 * row
        trunk.ln_f.bias.data.copy_(100 * row)
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return folder
