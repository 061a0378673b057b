"""Small real models on disk, shared by the tests."""

import os
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import TEXTS, write_pairs

os.environ["WANDB_MODE"] = "disabled"  # where a test wants W&B it says so
torch.set_num_threads(1)  # two test processes share two cores; and one thread is bitwise reproducible


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """A random GPT-2 and a random Llama with a trained tokenizer, each in a folder as `from_pretrained` reads it."""
    from rlhf.config import ScratchModel
    from rlhf.models.load import build_from_scratch

    folders = {}
    for architecture in ("gpt2", "llama"):
        torch.manual_seed(0)
        scratch = ScratchModel(
            architecture=architecture, hidden_size=32, layers=2, heads=2, context_length=96, vocab_size=320
        )
        model, tokenizer = build_from_scratch(scratch, TEXTS)
        for parameter in model.parameters():  # far from the near-uniform distribution of a fresh model
            parameter.data.mul_(3.0)
        folder = tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[architecture] = folder
    return folders


@pytest.fixture
def pairs(tmp_path) -> str:
    """A file with eight prompt/completion pairs."""
    return write_pairs(tmp_path)


@pytest.fixture
def hide_modules(monkeypatch):
    """Makes modules look as if they were not installed."""

    def hide(*names: str) -> None:
        for loaded in list(sys.modules):
            if loaded.partition(".")[0] in names:
                monkeypatch.delitem(sys.modules, loaded)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture
def vllm(monkeypatch):
    """vLLM, as far as this process can tell."""
    import vllm_standin

    vllm_standin.install(
        lambda name, module: monkeypatch.setitem(sys.modules, name, module),
        lambda name: monkeypatch.delitem(sys.modules, name),
    )
    from trl.generation.vllm_client import VLLMClient

    vllm_standin.send_from_cpu(VLLMClient, monkeypatch.setattr)
