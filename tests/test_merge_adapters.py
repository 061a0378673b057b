"""`sampling.merge_adapters`: with or without a copy of the weights, the same tokens; and who decides, once."""

from functools import partial

import pytest
import torch
from allocated import allocated_at_most
from tiny_runs import Crash, make_config, make_trainer

from rlhf.config import CheckpointConfig, LoraConfig, ModelConfig, SamplingConfig
from rlhf.config.generation import GenerationConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.merged import size_of_copy
from rlhf.policy.policy import Policy
from rlhf.ppo.trainer import Callback
from rlhf.sampling import memory
from rlhf.sampling.memory import choose_copies, size_of_batch
from rlhf.sampling.responses import sample_responses
from rlhf.stages.ppo import run_ppo

BLOCKS, HEAD = 2 * 12 * 32**2 * 4, 320 * 32 * 4
"""Bytes of the tiny GPT-2's linear layers: four matrices, 12 H^2 numbers, in each of two blocks; and of its LM head."""
CACHED, LOGITS = 2 * 2 * 32 * 4, 320 * (4 + 4 + 8)
"""Of one token: keys and values in two layers; logits, probabilities and their sums in float64."""


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def trainer(tiny_models, pairs, request):
    """Its adapters are away from zero, where they matter."""
    made = make_trainer(tiny_models, pairs, fast_paths=request.param)
    torch.manual_seed(1)
    for _, parameter in made.policy.trainable:
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return made


def sampled(trainer, setting, n_prompts=4, n_tokens=12):
    trainer.policy.shortcuts.copies = None
    sampling = SamplingConfig(max_new_tokens=n_tokens, merge_adapters=setting)
    generator = torch.Generator().manual_seed(0)
    return sample_responses(
        trainer.policy, trainer.tokenizer, trainer.prompts.prompts[:n_prompts], sampling, generator
    ).all_response_ids()


def test_the_same_tokens_either_way(trainer):
    merged = sampled(trainer, "always")
    assert sampled(trainer, "never") == merged
    for parameter in trainer.policy.policy_parameters():
        parameter.data.zero_()
    assert sampled(trainer, "never") != merged  # the adapters matter


def test_without_merging_no_copy_is_made(trainer):
    copied = {}
    for setting in ("always", "never"):
        sampled(trainer, setting, 1, 3)  # what is tried out only once
        copied[setting] = allocated_at_most(partial(sampled, trainer, setting, 1, 3))
    expected = BLOCKS + HEAD if trainer.policy.fast_paths else BLOCKS
    assert expected <= copied["always"] < 1.6 * expected
    assert copied["never"] < 0.5 * expected  # the cache of 40 tokens, activations


@pytest.mark.parametrize(("spare", "copies"), [(100, True), (-100, False)])
def test_auto_merges_where_a_tenth_of_the_memory_stays_free(trainer, monkeypatch, capsys, spare, copies):
    policy, holds, to_come = trainer.policy, 10_000_000, 500_000
    copy = BLOCKS + HEAD if policy.fast_paths else BLOCKS + 4 * 2 * 9 * 32  # with the biases: 3 + 1 + 4 + 1 times H
    needed = holds + copy + 16 * (50 * CACHED + LOGITS) + to_come
    monkeypatch.setattr(memory, "held", lambda device: holds)
    monkeypatch.setattr(memory, "room", lambda device: round(needed / 0.9) + spare)
    choose_copies(policy, "auto", 16, 50, to_come)
    assert policy.shortcuts.copies is copies
    said = capsys.readouterr().err
    assert said.startswith("decoding with the adapters beside the weights, not merged: merged weights take") != copies
    assert said.count("\n") == (not copies)
    monkeypatch.setattr(memory, "room", lambda device: 10 * needed if not copies else 0)
    choose_copies(policy, "auto", 16, 50, to_come)
    assert policy.shortcuts.copies is copies  # once and for all


def test_sizes_by_hand(tiny_models, pairs):
    trainer = make_trainer(tiny_models, pairs)
    assert size_of_copy(trainer.policy) == BLOCKS + HEAD
    assert size_of_batch(trainer.policy, 16, 50) == 16 * (50 * CACHED + LOGITS)
    plain = make_trainer(tiny_models, pairs, fast_paths=False)
    assert size_of_copy(plain.policy) == BLOCKS + 4 * 2 * 9 * 32


def test_never_says_so(trainer, capsys):
    sampled(trainer, "never")
    assert capsys.readouterr().err.endswith("not merged: sampling.merge_adapters is never\n")


def tied_head(tiny_models) -> Policy:
    model = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    return Policy.with_lora(model, LoraConfig(target_modules=["lm_head"]), "detached")


def in_full(tiny_models) -> Policy:
    return Policy.in_full(load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"]))), "shared")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (tied_head, "merge_adapters is always, but with them merged in the model computes something else"),
        (in_full, "merge_adapters is always, but the model has no adapters"),
    ],
)
def test_always_that_cannot_be_followed_is_refused(tiny_models, make, message):
    with pytest.raises(UserError, match=message):
        choose_copies(make(tiny_models), "always", 1, 10)


def test_auto_leaves_apart_what_cannot_be_merged_and_says_why(tiny_models, capsys):
    policy = tied_head(tiny_models)
    choose_copies(policy, "auto", 1, 10)
    assert policy.shortcuts.copies is False
    assert "with them merged in the model computes something else" in capsys.readouterr().err


def test_never_does_not_go_with_vllm(tiny_models, pairs):
    with pytest.raises(UserError, match=r"merge_adapters is never, but generation\.engine is vllm"):
        make_config(
            tiny_models["gpt2"],
            pairs,
            generation=GenerationConfig(engine="vllm"),
            sampling=SamplingConfig(merge_adapters="never"),
        )


class Witness(Callback):
    def __init__(self):
        self.seen = []

    def after_sampling(self, trainer, responses):
        self.seen.append(trainer.policy.shortcuts.copies)


def test_a_run_goes_on_as_it_began_however_much_memory_there_is_now(tiny_models, pairs, tmp_path, monkeypatch, capsys):
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path / "run"),
        num_updates=2,
        checkpoint=CheckpointConfig(save_steps=1),
    )
    first, second = Witness(), Witness()
    with monkeypatch.context() as scarce:
        scarce.setattr(memory, "room", lambda device: 0)
        with pytest.raises(RuntimeError, match="power failure"):
            run_ppo(config, callbacks=[first, Crash(at=2)])
    assert "merged weights take" in capsys.readouterr().err
    run_ppo(config, callbacks=[second])
    assert first.seen == [False, False]
    assert second.seen == [False]
    assert "not merged: as when this run began" in capsys.readouterr().err
