"""The doctor: silent on a healthy run, and each check on a set-up that is broken on purpose."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_data import write_jsonl
from tiny_runs import make_config
from transformers import AutoTokenizer

from rlhf.cli import main
from rlhf.config import DataConfig, ModelConfig, SamplingConfig, ValueWarmup
from rlhf.doctor import memory
from rlhf.doctor.check import Check
from rlhf.doctor.examination import examine
from rlhf.doctor.footprint import WARM_UP, Footprint, footprint, logits_of_update, resident, saved_by_one_row, size_of
from rlhf.doctor.lengths import check_responses_end
from rlhf.doctor.numerics import (
    check_decoding,
    check_kl_at_start,
    check_padding_invariance,
    check_reference,
    check_sampled_distribution,
)
from rlhf.doctor.rewards import check_rewards, duration
from rlhf.doctor.trial import Trial, build_trial_trainer, run_trial
from rlhf.doctor.update import check_update, fingerprint
from rlhf.models.load import load_causal_lm
from rlhf.policy.policy import Policy
from rlhf.rewards import RewardSpec, RewardSum
from rlhf.sampling.responses import sample_responses

ARCHITECTURES = ["gpt2", "llama"]


@pytest.fixture
def prompts(tmp_path) -> str:
    """Prompts of different lengths."""
    words = ["Save", "Send it", "Open the door", "Close", "Start all of it now", "Stop", "More or less", "Less"]
    return write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"Show a button saying {word}."} for word in words])


def constant(prompts, completions, **columns):
    return [0.5] * len(prompts)


def raising(prompts, completions, **columns):
    return [1 / 0 for _ in prompts]


def mostly_none(prompts, completions, **columns):
    return [1.0, *[None] * (len(prompts) - 1)]


def always_none(prompts, completions, **columns):
    return [None] * len(prompts)


def slow(prompts, completions, **columns):
    time.sleep(0.05 * len(prompts))
    return [float(len(text)) for text in completions]


def reward(name: str, **options) -> list[RewardSpec]:
    return [RewardSpec(path=f"test_doctor.{name}", **options)]


def config_for(tiny_models, prompts, architecture="gpt2", **options):
    config = make_config(
        tiny_models[architecture], prompts, sampling=SamplingConfig(max_new_tokens=30, temperature=0.8)
    )
    return dataclasses.replace(config, **options)


def by_name(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


def failures(checks) -> list[str]:
    return [check.name for check in checks if check.verdict == "failure"]


@pytest.fixture
def trainer(tiny_models, prompts):
    config = config_for(tiny_models, prompts)
    return build_trial_trainer(config, RewardSum.from_specs(config.rewards))


def trial_of(trainer, **options) -> Trial:
    return run_trial(dataclasses.replace(trainer.config, **options), trainer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"advantage": "rloo", "num_generations": 2}], ids=str)
def test_healthy_run_has_no_failure(tiny_models, prompts, architecture, dtype, options):
    model = ModelConfig(name_or_path=str(tiny_models[architecture]), dtype=dtype)
    checks = list(examine(config_for(tiny_models, prompts, architecture, model=model, **options)))
    # A model with random weights may not know when to stop: that, and nothing else, is worth a warning.
    assert [check for check in checks if check.verdict != "ok" and check.name != "responses end"] == []
    assert len({check.name for check in checks}) == len(checks) == 18


def test_prints_a_table_and_writes_nothing(tiny_models, prompts, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    options = ["--model.name_or_path", str(tiny_models["gpt2"]), "--data.train", prompts, "--output_dir", "run"]
    options += ["--batch_size", "8", "--mini_batch_size", "8", "--sampling.max_new_tokens", "20", "--lora.r", "4"]
    main(["doctor", *options, "--rewards", json.dumps([{"path": "tiny_runs.count_e"}])])
    output = capsys.readouterr().out
    assert "padding invariance" in output
    assert "ready to run" in output
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *options, "--rewards", json.dumps([{"path": "test_doctor.constant"}])])
    assert stopped.value.code == 1
    output = capsys.readouterr().out
    assert "no signal" in " ".join(output.split())
    assert "do not start this run yet" in output
    assert list(Path.cwd().iterdir()) == []


# Tokens


def altered_tokenizer(tiny_models, tmp_path, alter) -> ModelConfig:
    """A copy of the tiny GPT-2 whose tokenizer was changed by `alter`."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["gpt2"])
    alter(tokenizer)
    folder = tmp_path / "altered"
    folder.mkdir()
    for file in tiny_models["gpt2"].iterdir():
        if "token" not in file.name and "template" not in file.name:
            (folder / file.name).symlink_to(file)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name_or_path=str(folder))


def test_tokenizer_whose_padding_is_eos(tiny_models, prompts, tmp_path):
    model = altered_tokenizer(tiny_models, tmp_path, lambda t: setattr(t, "pad_token", t.eos_token))
    found = by_name(examine(config_for(tiny_models, prompts, model=model)))
    assert found["padding token"].verdict == "ok"
    assert "is EOS too: harmless" in found["padding token"].found
    assert failures(found.values()) == []  # and so it is


def test_tokenizer_without_eos(tiny_models, prompts, tmp_path):
    model = altered_tokenizer(tiny_models, tmp_path, lambda t: setattr(t, "eos_token", None))
    [check] = examine(config_for(tiny_models, prompts, model=model))
    assert (check.name, check.verdict) == ("model and data", "failure")
    assert "has no EOS token" in check.found


def test_tokenizer_of_another_model(tiny_models, prompts, tmp_path):
    model = altered_tokenizer(tiny_models, tmp_path, lambda t: t.add_tokens(["Show a button"]))
    checks = list(examine(config_for(tiny_models, prompts, model=model)))
    assert failures(checks) == ["vocabulary"]
    assert by_name(checks)["vocabulary"].found == "token id 320 ('Show a button'), the model has only 320"
    assert checks[-1].name == "memory"  # nothing was sampled: it would have crashed


def test_template_that_does_not_end_with_eos(tiny_models, prompts, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    model = altered_tokenizer(tiny_models, tmp_path, lambda t: setattr(t, "chat_template", template))
    check = by_name(examine(config_for(tiny_models, prompts, model=model)))["end of turn"]
    assert check.verdict == "warning"
    assert "ends an answer with '<|im_end|>', not with EOS '<|eos|>'" in check.found


# Lengths


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampling": SamplingConfig(max_new_tokens=90)}, "is more than the model's context of 96"),
        ({"data": {"max_prompt_tokens": 3}}, "more than data.max_prompt_tokens 3"),
        ({"data": {"train": "missing.jsonl"}}, "'missing.jsonl' does not exist"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_data_that_does_not_fit(tiny_models, prompts, options, words):
    if "data" in options:
        options = {"data": DataConfig(**{"train": prompts} | options["data"])}
    [check] = examine(config_for(tiny_models, prompts, **options))
    assert (check.name, check.verdict) == ("model and data", "failure")
    assert words in check.found


def test_responses_that_do_not_end(trainer):
    trial = trial_of(trainer)
    responses = trial.responses

    def verdict(n_ended: int) -> Check:
        ended = torch.arange(len(responses)) < n_ended
        return check_responses_end(dataclasses.replace(trial, responses=dataclasses.replace(responses, has_eos=ended)))

    assert [verdict(n).verdict for n in (0, 7, 8, 16)] == ["warning", "warning", "ok", "ok"]
    assert "0 of 16 end by themselves, the rest is cut off at 30 tokens" in verdict(0).found
    assert "fine-tune it first" in verdict(0).fix
    assert "raise sampling.max_new_tokens" in verdict(7).fix
    for n_tokens, words in [(30, "fine-tune it first"), (31, "raise sampling.max_new_tokens")]:
        known = [dataclasses.replace(prompt, completion_ids=[5] * n_tokens) for prompt in trial.prompts]
        trial = dataclasses.replace(trial, prompts=known)
        assert words in verdict(0).fix
    assert "the data's own completions have 31 (median)" in verdict(0).found


# Numerics: each is healthy first, then broken


class Peeking(Policy):
    """Its hidden states know what comes after them."""

    def features(self, input_ids):
        hidden = super().features(input_ids)
        return hidden + 0.1 * hidden.mean(1, keepdim=True)


class LeakyReference(Policy):
    """Its reference forgets to switch the adapters off."""

    @contextlib.contextmanager
    def reference(self):
        with torch.no_grad():
            yield


class Unadapted(Policy):
    """Its adapters never take part."""

    def forward(self, *args, **options):
        with self.wrapper.pretrained_model.disable_adapter():
            return super().forward(*args, **options)


class Dropping(Policy):
    """Behaves differently when it is trained."""

    def forward(self, *args, **options):
        result = super().forward(*args, **options)
        if not torch.is_grad_enabled():
            return result
        noise = torch.randn(result.logprobs.shape, generator=torch.Generator().manual_seed(0))
        return result._replace(logprobs=result.logprobs + 0.1 * noise)


class CutOff(Policy):
    """Its log-probabilities carry no gradient."""

    def forward(self, *args, **options):
        result = super().forward(*args, **options)
        return result._replace(logprobs=result.logprobs.detach())


def test_model_that_looks_ahead(trainer):
    assert check_padding_invariance(trial_of(trainer)).verdict == "ok"
    trainer.policy.__class__ = Peeking
    check = check_padding_invariance(trial_of(trainer))
    assert check.verdict == "failure"
    assert "causal attention" in check.fix


def without_positions(module, args, kwargs):
    return args, kwargs | ({"position_ids": None} if kwargs.get("past_key_values") is not None else {})


def test_decode_loop_with_wrong_positions(trainer):
    trial = trial_of(trainer)
    assert check_decoding(trial).verdict == "ok"

    trainer.policy.language_model.base_model.register_forward_pre_hook(without_positions, with_kwargs=True)
    check = check_decoding(trial)
    assert check.verdict == "failure"
    assert "left padding" in check.fix


def test_wrong_positions_stand_out_from_the_rounding_of_bfloat16(tiny_models, prompts):
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype="bfloat16")
    config = config_for(tiny_models, prompts, model=model)
    trainer = build_trial_trainer(config, RewardSum.from_specs(config.rewards))
    trial = trial_of(trainer)
    assert check_decoding(trial).verdict == "ok"
    trainer.policy.language_model.base_model.register_forward_pre_hook(without_positions, with_kwargs=True)
    assert check_decoding(trial).verdict == "failure"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_rounding_is_about_what_another_order_of_summation_does(tiny_models, prompts, dtype):
    """The measure of rounding against the error of the type itself, which float64 knows."""
    config = config_for(tiny_models, prompts, model=ModelConfig(name_or_path=str(tiny_models["gpt2"]), dtype=dtype))
    trainer = build_trial_trainer(config, RewardSum.from_specs(config.rewards))
    trial = trial_of(trainer)
    exact = load_causal_lm(config.model).double()
    responses, errors = trial.responses, []
    for row in range(len(responses)):
        start, length = int(responses.prompt_lengths[row]), int(responses.lengths[row])
        ids = responses.sequence_ids[row, : start + length]
        with torch.no_grad():
            logprobs = (exact(ids[None]).logits[0, start - 1 : -1] / 0.8).log_softmax(-1)
        chosen = logprobs.gather(-1, ids[start:, None]).squeeze(-1)
        errors.append((chosen - trial.old.logprobs[row, :length]).abs().mean().item())
    assert 0.1 * max(errors) < trial.rounding < 10 * max(errors)


def test_decoding_is_compared_on_rows_that_end_at_different_times(trainer):
    """About one token in seven ends a response here, so that the loop drops rows again and again."""
    head = trainer.policy.language_model.get_output_embeddings()
    eos = trainer.tokenizer.eos_token_id

    def often_eos(module, inputs, logits):
        ending = torch.zeros_like(logits)
        ending[..., eos] = logits.logsumexp(-1) - logits[..., eos] - 1.5
        return logits + ending

    head.register_forward_hook(often_eos)
    trial = trial_of(trainer)
    assert len(set(trial.responses.lengths.tolist())) > 4
    assert check_decoding(trial).verdict == "ok"


@pytest.mark.parametrize("sampled_with", [{"temperature": 0.5}, {"temperature": 2.0}, {"top_p": 0.7}], ids=str)
def test_sampler_and_scorer_disagree(trainer, sampled_with):
    assert check_sampled_distribution(trial_of(trainer)).verdict == "ok"
    other = dataclasses.replace(trainer.config.sampling, **sampled_with)
    trainer.sample = lambda prompts: sample_responses(
        trainer.policy, trainer.tokenizer, prompts, other, trainer.generator
    )
    check = check_sampled_distribution(trial_of(trainer))
    assert check.verdict == "failure"
    assert ("flatter" if other.temperature > 1 else "sharper") in check.fix


def test_adapter_that_is_not_zero_at_the_start(trainer):
    assert check_kl_at_start(trial_of(trainer)).verdict == "ok"
    for parameter in trainer.policy.policy_parameters():
        parameter.data.add_(0.05)
    check = check_kl_at_start(trial_of(trainer))
    assert check.verdict == "failure"
    assert "not zero at the start" in check.fix


def test_reference_that_is_trained_along(trainer):
    before = {name: p.detach().clone() for name, p in trainer.policy.named_parameters()}
    assert [c.verdict for c in check_reference(trial_of(trainer))] == ["ok", "ok"]
    assert all(torch.equal(before[name], p) for name, p in trainer.policy.named_parameters())
    trainer.policy.__class__ = LeakyReference
    found = by_name(check_reference(trial_of(trainer)))
    assert (found["reference"].verdict, found["adapters"].verdict) == ("failure", "ok")


def test_adapters_without_effect(trainer):
    trainer.policy.__class__ = Unadapted
    found = by_name(check_reference(trial_of(trainer)))
    assert (found["reference"].verdict, found["adapters"].verdict) == ("ok", "failure")


# One update with learning rate 0


def test_warm_up_does_not_keep_the_policy_from_being_examined(tiny_models, prompts):
    config = config_for(tiny_models, prompts, value_warmup=ValueWarmup(max_updates=3))
    trainer = build_trial_trainer(config, RewardSum.from_specs(config.rewards))
    assert by_name(check_update(trial_of(trainer)))["gradient"].verdict == "ok"


def test_policy_that_differs_in_training(trainer):
    trainer.policy.__class__ = Dropping
    found = by_name(check_update(trial_of(trainer)))
    assert found["first ratio"].verdict == "failure"
    assert "logprobs differ by 0.1" in found["first ratio"].found
    assert found["learning rate 0"].verdict == "ok"


def test_policy_without_gradient(trainer):
    trainer.policy.__class__ = CutOff
    found = by_name(check_update(trial_of(trainer)))
    assert [name for name, check in found.items() if check.verdict == "failure"] == ["gradient"]


def test_update_that_writes_into_the_weights(trainer):
    trainer.epochs.optimizer.register_step_post_hook(
        lambda *_: trainer.policy.policy_parameters()[0].data.mul_(1 + 1e-7)
    )
    found = by_name(check_update(trial_of(trainer)))
    assert [name for name, check in found.items() if check.verdict == "failure"] == ["learning rate 0"]
    assert "1 of " in found["learning rate 0"].found


def test_fingerprint_sees_a_single_bit():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.arange(5).to(dtype)
        changed = tensor.clone()
        changed[3] = 0
        assert fingerprint(tensor) == fingerprint(tensor.clone()) != fingerprint(changed)


# Rewards


@pytest.mark.parametrize(
    ("specs", "name", "verdict", "words"),
    [
        (reward("constant"), "rewards in all", "failure", "0.5 to 0.5, mean 0.5, std 0: no signal"),
        (reward("constant"), "reward constant", "warning", "weight 1: 0.5 to 0.5"),
        (reward("always_none"), "reward always_none", "warning", "None for all 16 responses"),
        (reward("mostly_none"), "reward mostly_none", "warning", "None for 15 of 16"),
        (reward("raising"), "rewards", "failure", "'raising' raised ZeroDivisionError"),
        (reward("slow"), "reward time", "warning", "for 4 batches of 16; sampling takes"),
        ([RewardSpec(path="length", args={"maximum": 3})], "reward length", "ok", "weight 1: 0."),
    ],
    ids=lambda value: value[0].path if isinstance(value, list) else None,
)
def test_rewards_that_teach_nothing(trainer, specs, name, verdict, words):
    trainer.reward_fn = RewardSum.from_specs(specs)
    check = by_name(check_rewards(trial_of(trainer)))[name]
    assert check.verdict == verdict
    assert words in check.found


def test_reward_that_does_not_exist_is_not_all_there_is_to_say(tiny_models, prompts):
    checks = list(examine(config_for(tiny_models, prompts, rewards=reward("misspelled"))))
    assert failures(checks) == ["rewards"]
    assert "has no 'misspelled'" in checks[0].found
    assert "decoding" in by_name(checks)


def test_reward_that_raises_is_not_all_there_is_to_say(tiny_models, prompts):
    checks = list(examine(config_for(tiny_models, prompts, rewards=reward("raising"))))
    assert failures(checks) == ["rewards"]
    assert "decoding" in by_name(checks)


def test_durations_in_words():
    assert [duration(s) for s in (1.5, 119, 600, 10000, 864000)] == [
        "1.5 seconds",
        "1.2e+02 seconds",
        "10.0 minutes",
        "2.8 hours",
        "10.0 days",
    ]


# Memory


def test_model_that_is_too_large_is_not_loaded(tiny_models, prompts, monkeypatch):
    monkeypatch.setattr(memory, "room", lambda device: 100_000)
    [check] = examine(config_for(tiny_models, prompts))
    assert (check.name, check.verdict) == ("memory", "failure")
    assert check.found == "the weights take 0 MiB, this machine has room for 0 MiB"


@pytest.mark.parametrize(("share", "verdict"), [(2.0, "ok"), (1.05, "warning"), (0.95, "failure")])
def test_update_that_does_not_fit(trainer, monkeypatch, share, verdict):
    peak = footprint(trainer.config, trainer.policy, prompt_tokens=20).peak
    monkeypatch.setattr(memory, "room", lambda device: int(share * peak))
    check = memory.check_memory(trainer.config, trainer.policy, prompt_tokens=20)
    assert check.verdict == verdict
    assert (not check.fix) == (verdict == "ok")


def test_logits_by_hand(trainer):
    """V = 320: ten tokens, and a block of 256 out of many; the entropy's derivatives take as much again."""
    model = trainer.policy.language_model
    assert logits_of_update(model, 10, with_entropy=False) == 10 * 320 * 4
    assert logits_of_update(model, 200_000, with_entropy=False) == 256 * 320 * 4
    assert logits_of_update(model, 200_000, with_entropy=True) == 2 * 256 * 320 * 4


def test_peak_is_that_of_the_larger_phase():
    """Logits and gradients are not there at the same time, nor are sampling and update."""
    always = {"process": 1, "weights": 20, "training": 300}
    update = {"activations": 4_000, "logits": 50_000, "gradients": 60_000}
    assert Footprint(**always, **update, sampling=64_001).peak == 64_322
    assert Footprint(**always, **update, sampling=63_999).peak == 64_321
    assert Footprint(**always, **update | {"logits": 70_000}, sampling=0).peak == 74_321


def test_shared_storage_counts_once():
    x = torch.zeros(100)
    assert size_of([x, x[:50], x.view(10, 10), torch.zeros(25, dtype=torch.bfloat16)]) == 400 + 50


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_autograd_keeps_grows_with_rows(tiny_models, prompts, architecture):
    """Measured on one row; the real batch of three is the reference."""
    config = config_for(tiny_models, prompts, architecture)
    policy = build_trial_trainer(config, RewardSum.from_specs(config.rewards)).policy
    model, kept = policy.language_model, {}
    weights = {p.data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros(3, 40, dtype=torch.long), use_cache=False)
    expected = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)
    assert 3 * sum(saved_by_one_row(model, 40)) == pytest.approx(expected, rel=0.02)


def test_parts_of_the_footprint_by_hand(trainer):
    config, policy = trainer.config, trainer.policy
    estimate = footprint(config, policy, prompt_tokens=20)
    trainable = sum(p.numel() for _, p in policy.trainable)
    assert estimate.training == 4 * 4 * trainable  # value, gradient, two moments of 4 bytes
    assert estimate.weights == 4 * sum(p.numel() for p in policy.parameters() if not p.requires_grad)
    packed = (2 * 12 * 32**2 + 320 * 32) * 4  # four matrices in each of two layers, and the LM head
    cache = 2 * 2 * 16 * (20 + 30) * 32 * 4  # keys and values, layers, rows, tokens, H
    one_token = 16 * 320 * (4 + 4 + 8)  # logits, probabilities, their sums in float64
    assert estimate.sampling == packed + cache + one_token
    rows = config.micro_batch_size
    assert estimate.gradients == 4 * rows * (20 + 30) * 4 * 32 * 4  # of the MLP's inner activation
    head = rows * 30 * 32 * 4  # the gradient of each feature
    detached = footprint(dataclasses.replace(config, critic="detached"), policy, 20)
    assert detached.activations == rows * sum(saved_by_one_row(policy.language_model, 50)) + head
    assert estimate.activations == 2 * (detached.activations - head) + head
    assert detached.logits == rows * 30 * 320 * 4
    assert estimate.logits == max(0, detached.logits - (detached.activations - head))
    with_entropy = footprint(dataclasses.replace(config, entropy_coef=0.01), policy, 20)
    assert with_entropy.activations == estimate.activations + head
    assert abs(estimate.process + estimate.weights - resident() - WARM_UP) < WARM_UP / 4  # it moves a little


def test_checkpointing_keeps_less(tiny_models, prompts):
    model = ModelConfig(name_or_path=str(tiny_models["gpt2"]), gradient_checkpointing=True)
    config = config_for(tiny_models, prompts, model=model)
    policy = build_trial_trainer(config, RewardSum.from_specs(config.rewards)).policy
    one_row = saved_by_one_row(policy.language_model, 50)
    trunk = 4 * (2 * 50 * 32 * 4) + 4 * sum(one_row) // 2  # 4 rows: inputs of two layers, one layer of two
    head = 4 * 30 * 32 * 4
    assert footprint(config, policy, prompt_tokens=20).activations == 2 * trunk + head


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"lora": None, "critic": "separate"}], ids=str)
def test_estimate_is_near_the_measured_peak(tiny_models, prompts, tmp_path, options):
    """A model whose activations dominate, in a process of its own, within what the docs claim."""
    from rlhf.config import ScratchModel
    from rlhf.models.load import build_from_scratch

    scratch = ScratchModel(hidden_size=192, layers=6, heads=6, context_length=192, vocab_size=512)
    model, tokenizer = build_from_scratch(scratch, ["Show a button saying Save."])
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    script = Path(__file__).parent / "peak_memory.py"
    command = [sys.executable, str(script), str(tmp_path / "model"), prompts, json.dumps(options)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured, estimated = json.loads(output)
    assert estimated == pytest.approx(measured, rel=0.15)
