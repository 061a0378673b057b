"""What `ppo` looks at on its own first update, and refuses in one line; nothing is left of such a run but its log."""

import dataclasses
import re
import shutil

import pytest
import torch
from chat_folders import save_chat_model
from tiny_data import write_jsonl
from tiny_runs import Crash, make_config
from transformers import AutoModelForCausalLM

from rlhf.config import CheckpointConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.policy.policy import Policy
from rlhf.stages import ppo
from rlhf.stages.ppo import run_ppo


@pytest.fixture
def run(tiny_models, tmp_path, monkeypatch):
    """Runs two updates of a trainer that `break_it` has seen before; returns the policy's folder.

    Its prompts are of different lengths, so that decoding pads.
    """
    words = ["Save", "Send it", "Open the door", "Close", "Start all of it now", "Stop", "More or less", "Less"]
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Show a button saying {word}."} for word in words])

    build = ppo.build_trainer

    def start(break_it=lambda trainer: None, **options):
        defaults = {"output_dir": str(tmp_path / "run"), "sampling": SamplingConfig(max_new_tokens=6)}
        options = {"num_updates": 2, **defaults} | options

        def broken(*arguments):
            trainer = build(*arguments)
            break_it(trainer)
            return trainer

        monkeypatch.setattr(ppo, "build_trainer", broken)
        return run_ppo(make_config(options.pop("folder", tiny_models["gpt2"]), prompts, **options))

    return start


def stir(trainer):
    for parameter in trainer.policy.policy_parameters():
        parameter.data.add_(0.05)


def damage(trainer):
    trainer.policy.language_model.transformer.h[1].mlp.c_fc.base_layer.weight.data[0] = float("nan")


def other_positions(trainer):
    def without(module, args, kwargs):
        return args, kwargs | ({"position_ids": None} if kwargs.get("past_key_values") is not None else {})

    trainer.policy.shortcuts.decoding = "fast"  # else the trial of the ways to read would find one without a cache
    trainer.policy.language_model.base_model.register_forward_pre_hook(without, with_kwargs=True)


class Dropping(Policy):
    """Behaves differently when it is trained."""

    def forward(self, *args, **options):
        result = super().forward(*args, **options)
        return result._replace(logprobs=result.logprobs + 0.1 * torch.is_grad_enabled())


def drop(trainer):
    trainer.policy.__class__ = Dropping


def test_a_healthy_run_hears_nothing(run, tmp_path, capsys):
    assert (run() / "policy.json").is_file()
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (stir, "nats per response from its reference"),
        (other_positions, "sampler and policy differ by"),
        (drop, r"the first ratio is 1\.105\d, not 1"),
        (damage, "not finite|relative error nan"),  # the decode loop tries its shortcuts out first, and may see it
    ],
)
def test_a_run_that_would_be_wasted_ends_with_its_first_update(run, tmp_path, fault, words):
    with pytest.raises(UserError, match=words) as raised:
        run(fault)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "policy").exists()


def test_a_run_that_goes_on_is_not_looked_at_again(run, tmp_path):
    """By then its policy is no longer the reference."""

    def crash(trainer):
        trainer.callbacks = [*trainer.callbacks, Crash(at=2)]

    with pytest.raises(RuntimeError, match="power failure"):
        run(crash, checkpoint=CheckpointConfig(save_steps=1))
    assert (run(checkpoint=CheckpointConfig(save_steps=1)) / "policy.json").is_file()


def test_a_token_without_a_row_in_the_embeddings(run, tiny_models, tmp_path):
    folder = save_chat_model(tmp_path / "model", tiny_models["gpt2"], "gemma")
    AutoModelForCausalLM.from_pretrained(tiny_models["gpt2"]).save_pretrained(folder)  # without the added rows
    with pytest.raises(UserError, match="token id 321 is used, but the model has only 320"):
        run(folder=folder)


def test_tokens_of_a_padded_vocabulary_are_counted(run, tiny_models, tmp_path, capsys):
    """Ten times as many rows as the tokenizer has tokens: an untrained model says them."""
    folder = shutil.copytree(tiny_models["gpt2"], tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(3200, mean_resizing=False)
    model.save_pretrained(folder)
    run(folder=folder)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "have no text" in line]
    n, total, rows, known = map(int, re.findall(r"\d+", line))
    assert (rows, known) == (3200, 320)
    assert 0.5 * total < n < total


def test_an_answer_that_nothing_closes_is_said_once(run, tiny_models, tmp_path, capsys):
    def open_end(trainer):
        trainer.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n### {% endfor %}"

    run(open_end)
    said = [line for line in capsys.readouterr().err.splitlines() if "ends an answer with '###'" in line]
    assert len(said) == 1


def test_a_vllm_server_that_reports_another_temperature(run):
    def raw(trainer):
        sample = trainer.sample

        def at_temperature_one(prompts):
            responses = sample(prompts)
            said = trainer.policy(
                responses.sequence_ids, responses.prompt_lengths, responses.response_mask, temperature=1.0
            ).logprobs
            return dataclasses.replace(responses, sampler_logprobs=said.detach())

        trainer.sample = at_temperature_one

    with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
        run(raw, sampling=SamplingConfig(max_new_tokens=6, temperature=0.5))
