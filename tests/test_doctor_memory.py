"""Every setting moves the doctor's estimate where it moves the memory, and remedies are those that help."""

import dataclasses
import re

import pytest
import torch
from allocated import allocated_at_most
from peak_memory import never_end
from tiny_data import TEXTS
from tiny_runs import make_config, make_trainer

from rlhf.config import InspectConfig, ModelConfig, PolicyEvaluation, SamplingConfig, ScratchModel
from rlhf.config.generation import GenerationConfig
from rlhf.doctor import memory
from rlhf.doctor.footprint import footprint
from rlhf.doctor.remedies import candidates, of_weights
from rlhf.models.device_memory import amount
from rlhf.models.load import build_from_scratch
from rlhf.sampling.sizes import longest_row, per_process, rows_decoded

VLLM = GenerationConfig(engine="vllm", mode="server", server_url="http://localhost:8000")
LARGE = {"batch_size": 4096, "mini_batch_size": 4, "micro_batch_size": 4}
"""Sampling takes more than the update."""


@pytest.fixture(scope="module")
def trainer(tiny_models, tmp_path_factory):
    from tiny_data import write_pairs

    return make_trainer(tiny_models, write_pairs(tmp_path_factory.mktemp("memory")))


def config_of(trainer, **options):
    return dataclasses.replace(trainer.config, inspect=InspectConfig(prompts=0), **options)


def sampling_of(trainer, **options) -> int:
    return footprint(config_of(trainer, **options), trainer.policy, 20).sampling


def test_rows_decoded_at_once_by_hand(trainer):
    def rows(**options):
        return rows_decoded(config_of(trainer, **options))

    assert rows(batch_size=64) == 64
    assert rows(batch_size=64, num_processes=3) == 22
    assert rows(batch_size=64, rollout_batch_size=16) == 16
    assert rows(batch_size=64, rollout_batch_size=100) == 64
    assert rows(batch_size=64, generation=VLLM) == 0
    inspected = dataclasses.replace(trainer.config, batch_size=4, inspect=InspectConfig(prompts=5))
    assert rows_decoded(inspected) == 10  # two responses to each, on the first process
    assert rows_decoded(dataclasses.replace(inspected, generation=VLLM)) == 10
    data = dataclasses.replace(trainer.config.data, eval=trainer.config.data.train)
    held_out = PolicyEvaluation(prompts=6, num_generations=3)
    assert rows(batch_size=64, generation=VLLM, evaluation=held_out, data=data) == 18
    assert rows(batch_size=8, generation=VLLM, evaluation=held_out, data=data) == 8
    assert per_process(config_of(trainer, num_processes=4), 9) == 3


def test_a_row_is_no_longer_than_the_context(trainer):
    config = config_of(trainer, sampling=SamplingConfig(max_new_tokens=30))
    assert (longest_row(config, 20, 96), longest_row(config, 80, 96)) == (50, 96)


def test_sampling_by_its_settings(trainer):
    """At 4096 rows of 20 + 10 tokens, of which every second has a prompt of its own."""
    large = sampling_of(trainer, **LARGE)
    cache, logits, reading = 30 * 2 * 2 * 32 * 4, 320 * (4 + 4 + 8), 20 * 3 * (4 * 32 * 4)  # three of the MLP's inner
    one_row = max(cache + logits, (cache + reading) // 2)
    assert one_row > cache + logits
    copy = (2 * 12 * 32**2 + 320 * 32) * 4
    assert large == 4096 * one_row + copy
    assert sampling_of(trainer, **LARGE, rollout_batch_size=1024) == 1024 * one_row + copy
    assert sampling_of(trainer, **LARGE, num_processes=2) == 2048 * one_row + copy
    assert sampling_of(trainer, **LARGE, sampling=SamplingConfig(max_new_tokens=10, merge_adapters="never")) == (
        4096 * one_row
    )
    assert sampling_of(trainer, **LARGE, generation=VLLM) == 0


def test_no_copy_where_none_was_chosen(tiny_models, pairs):
    with_copy, without = (make_trainer(tiny_models, pairs) for _ in range(2))
    without.policy.shortcuts.copies = False
    sizes = [footprint(t.config, t.policy, 20).sampling for t in (with_copy, without)]
    assert sizes[0] - sizes[1] == (2 * 12 * 32**2 + 320 * 32) * 4


@pytest.mark.parametrize(
    ("smaller", "part"),
    [
        ({"micro_batch_size": 2}, "activations"),
        ({"mini_batch_size": 2}, "activations"),
        ({"critic": "detached"}, "activations"),
        ({"critic": "branch"}, "activations"),
        ({"model": ModelConfig(name_or_path="x", gradient_checkpointing=True)}, "activations"),
        ({"model": ModelConfig(name_or_path="x", dtype="bfloat16")}, "weights"),
        ({"sampling": SamplingConfig(max_new_tokens=5)}, "activations"),
        ({"rollout_batch_size": 2}, "sampling"),
        ({"generation": VLLM}, "sampling"),
        ({"sampling": SamplingConfig(max_new_tokens=10, merge_adapters="never")}, "sampling"),
    ],
    ids=str,
)
def test_less_is_less(trainer, smaller, part):
    before = footprint(config_of(trainer), trainer.policy, 20)
    after = footprint(config_of(trainer, **smaller), trainer.policy, 20)
    assert getattr(after, part) < getattr(before, part)
    others = set(vars(before)) - {part, "process", "activations", "logits", "gradients", "sampling"}
    assert all(getattr(after, name) == getattr(before, name) for name in others)


def remedies(trainer, monkeypatch, **options) -> str:
    monkeypatch.setattr(memory, "room", lambda device: 1)
    check = memory.check_memory(config_of(trainer, **options), trainer.policy, 20)
    assert check.verdict == "failure"
    return check.fix


def test_remedies_are_those_of_the_larger_phase(trainer, monkeypatch):
    """What takes no part in the peak is not named: nobody would be helped by it."""
    sampling = remedies(trainer, monkeypatch, **LARGE | {"batch_size": 2**17})
    assert "rollout_batch_size 65536 (about" in sampling
    assert "sampling.max_new_tokens 5 (about" in sampling
    for other in ("micro_batch_size", "gradient_checkpointing", "critic detached", "merge_adapters"):
        assert other not in sampling
    update = remedies(trainer, monkeypatch, batch_size=2**15, mini_batch_size=2**15, micro_batch_size=2**15,
                      rollout_batch_size=4)  # fmt: skip
    for other in ("micro_batch_size 16384 (about", "micro_batch_size 1 (about", "gradient_checkpointing true (about"):
        assert other in update
    assert "critic detached (about" in update
    assert "rollout_batch_size" not in update


def test_remedies_that_a_model_cannot_take_are_left_out(pairs, tmp_path, monkeypatch):
    """A branch of the only block there is; and blocks of a branch mean nothing to another critic."""
    size = {"hidden_size": 32, "layers": 1, "heads": 2, "context_length": 96, "vocab_size": 320}
    for part in build_from_scratch(ScratchModel(architecture="llama", **size), TEXTS):
        part.save_pretrained(tmp_path / "model")
    update = {"batch_size": 2**15, "mini_batch_size": 2**15, "micro_batch_size": 2**15, "rollout_batch_size": 4}
    small = make_trainer({"llama": tmp_path / "model"}, pairs, "llama")
    assert "critic detached" in remedies(small, monkeypatch, **update)
    assert "critic branch" not in remedies(small, monkeypatch, **update)
    of_a_branch = dataclasses.replace(small.config, critic="branch", critic_layers=1)
    assert "critic detached" in [text for text, _ in candidates(of_a_branch)]


def test_a_remedy_says_what_it_would_leave(trainer, monkeypatch):
    options = LARGE | {"batch_size": 2**17}
    [said] = re.findall(r"rollout_batch_size 65536 \(about (.*?)\)", remedies(trainer, monkeypatch, **options))
    after = footprint(config_of(trainer, **options, rollout_batch_size=65536), trainer.policy, 20)
    assert float(said.split()[0]) == pytest.approx(float(amount(after.peak).split()[0]), rel=0.05)  # the process grows


@pytest.mark.parametrize(
    ("options", "fast", "expected"),
    [
        ({}, True, "model.dtype bfloat16 or a smaller model"),
        ({}, False, "a smaller model"),  # this processor would take many times as long
        ({"model": ModelConfig(name_or_path="x", dtype="bfloat16")}, True, "a smaller model"),
        ({"lora": None, "critic": "shared"}, True, "a smaller model"),  # full training is in float32
    ],
    ids=str,
)
def test_what_helps_where_the_weights_alone_are_too_large(tiny_models, monkeypatch, options, fast, expected):
    monkeypatch.setattr("rlhf.doctor.remedies.has_bfloat16", lambda: fast)
    config = dataclasses.replace(make_config(tiny_models["gpt2"], "data.jsonl"), **options)
    assert of_weights(config) == expected


def test_candidates_are_settings_that_a_config_accepts(trainer, monkeypatch):
    monkeypatch.setattr("rlhf.doctor.remedies.has_bfloat16", lambda: True)
    config = config_of(trainer)
    for text, changed in candidates(config):
        name, value = text.split()
        section, _, key = name.rpartition(".")
        asked = getattr(getattr(changed, section) if section else changed, key)
        assert str(asked).lower() == value
        assert changed != config


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("setting", ["auto", "never"])
def test_each_phase_takes_what_was_estimated(tmp_path, pairs, monkeypatch, architecture, setting):
    """Counted by torch's allocator, on a model whose activations and weights outweigh the rest."""
    from rlhf.config import ScratchModel
    from rlhf.models.load import build_from_scratch
    from rlhf.sampling import decode

    scratch = ScratchModel(architecture=architecture, hidden_size=192, layers=4, heads=4, vocab_size=512)
    for part in build_from_scratch(scratch, ["Show a button saying Save."]):
        part.save_pretrained(tmp_path / "model")
    trainer = make_trainer({architecture: tmp_path / "model"}, pairs, architecture, fast_paths=False, critic="detached",
                           sampling=SamplingConfig(max_new_tokens=60, merge_adapters=setting))  # fmt: skip
    monkeypatch.setattr(decode, "choose", decode.choose)  # put back afterwards
    never_end(trainer.tokenizer)
    longest = max(len(prompt.prompt_ids) for prompt in trainer.prompts.prompts)
    estimate = footprint(config_of(trainer), trainer.policy, longest)
    prompts = trainer.next_prompts()
    assert allocated_at_most(lambda: trainer.sample(prompts)) == pytest.approx(estimate.sampling, rel=0.15)
    rollout = trainer.update().rollout
    trainer.epochs.optimizer.zero_grad()
    measured = allocated_at_most(lambda: trainer.epochs.gradient(rollout.rows(torch.arange(4)), critic_only=False))
    assert measured == pytest.approx(estimate.update, rel=0.15)
