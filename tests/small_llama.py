"""A small Llama on disk that holds the prompts of the shipped configs, and options that make a run of them short."""

import json
from pathlib import Path

import torch

from rlhf.config import ScratchModel
from rlhf.models.load import build_from_scratch

SHORT_RUN = (
    "--data.train data/react/five.jsonl --data.eval null --num_updates 2 --batch_size 4 --mini_batch_size 4 "
    "--micro_batch_size 2 --sampling.max_new_tokens 8 --value_warmup.max_updates 0"
)


def save_small_llama(folder: Path) -> Path:
    """Write model and tokenizer."""
    torch.manual_seed(0)
    scratch = ScratchModel(architecture="llama", hidden_size=64, layers=2, heads=2, context_length=1024, vocab_size=400)
    lines = Path("data/react/five.jsonl").read_text(encoding="utf-8").splitlines()
    model, tokenizer = build_from_scratch(scratch, [json.loads(line)["completion"] for line in lines])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
