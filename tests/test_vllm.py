"""Rollouts through vLLM, against a stand-in that speaks its calls (tests/vllm_standin.py)."""

import dataclasses
import json
import socket
import sys
from pathlib import Path

import pytest
import torch
import vllm_standin
from accelerate import Accelerator
from processes import launch
from small_llama import SHORT_RUN, save_small_llama
from tiny_runs import make_config

import rlhf.sampling.vllm_server
from rlhf.cli import main
from rlhf.config import EnvironmentSpec, LoraConfig, ModelConfig, PPOConfig, SamplingConfig
from rlhf.config.generation import GenerationConfig
from rlhf.environments.episodes import respond
from rlhf.environments.returns import reward_fn
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.policy.merged import merged
from rlhf.policy.policy import Policy
from rlhf.ppo.trainer import Callback
from rlhf.rewards import RewardSum
from rlhf.sampling.decode import stop_strings
from rlhf.sampling.responses import sample_responses
from rlhf.sampling.vllm import VLLMSampler
from rlhf.sampling.vllm_engine import merged_weights
from rlhf.stages.ppo import build_trainer

COLOCATED = GenerationConfig(engine="vllm")
ADAPTERS = GenerationConfig(engine="vllm", mode="server", server_url="http://x", send="adapters")
NEARLY_GREEDY = 0.01


def make_policy(folder, dtype: str = "float32") -> Policy:
    """A policy whose two sets of adapters do something."""
    torch.manual_seed(1)
    model = load_causal_lm(ModelConfig(name_or_path=str(folder), dtype=dtype))
    policy = Policy.with_lora(model, LoraConfig(r=4, alpha=8), "adapter")
    for _, parameter in policy.trainable:
        parameter.data.normal_(std=0.1)
    return policy


def trainer_with(tiny_models, pairs, generation=COLOCATED, max_prompt_tokens=64, **options):
    """A trainer whose longest sequence fits into the 96 positions of the small models."""
    config = make_config(tiny_models["gpt2"], pairs, generation=generation, **options)
    data = dataclasses.replace(config.data, max_prompt_tokens=max_prompt_tokens)
    return build_trainer(dataclasses.replace(config, data=data), RewardSum.from_specs(config.rewards))


@pytest.fixture(params=["colocate", "weights", "adapters"])
def mode(request, vllm, tiny_models, tmp_path, monkeypatch):
    """(a config, the stand-in's engine of a trainer with that config) of each way to get the policy to vLLM."""
    monkeypatch.chdir(tmp_path)
    if request.param == "colocate":
        return COLOCATED, lambda trainer: trainer.vllm.engine.llm
    served = vllm_standin.Serve(tiny_models["gpt2"], logprobs_mode="processed_logprobs")
    return server(served, send=request.param), lambda trainer: served.llm


sends_all_weights = pytest.mark.parametrize("mode", ["colocate", "weights"], indirect=True)
"""Where a test has changed the base too."""


def server(served, **options) -> GenerationConfig:
    return GenerationConfig(engine="vllm", mode="server", server_url=served.url, **options)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_are_those_of_merged_under_the_names_of_the_plain_model(tiny_models, architecture, dtype):
    policy = make_policy(tiny_models[architecture], dtype)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    ours = dict(merged_weights(policy.language_model))
    plain = load_causal_lm(ModelConfig(name_or_path=str(tiny_models[architecture]), dtype=dtype))
    assert list(ours) == [name for name, _ in plain.named_parameters()]
    changed = [name for name, weight in plain.named_parameters() if not torch.equal(ours[name], weight)]
    assert len(changed) == 2 * {"gpt2": 4, "llama": 7}[architecture]  # the linear layers of two blocks
    with merged(policy):
        theirs = {name.replace(".base_layer", ""): p for name, p in policy.language_model.named_parameters()}
        assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())


class WeightsSeenWhileSampling(Callback):
    """The engine's weights as each batch is sampled, and those of the policy."""

    def __init__(self, engine_of):
        self.engine_of, self.seen = engine_of, []

    def after_sampling(self, trainer, responses):
        engine = {name: p.clone() for name, p in self.engine_of(trainer).worker.model.named_parameters()}
        self.seen.append((engine, dict(merged_weights(trainer.policy.language_model))))


def test_every_update_samples_with_the_weights_of_now(tiny_models, pairs, mode):
    generation, engine_of = mode
    trainer = trainer_with(tiny_models, pairs, generation, rollout_batch_size=4)
    trainer.callbacks = [WeightsSeenWhileSampling(engine_of)]
    reference = {name: p.detach().clone() for name, p in trainer.policy.named_parameters() if "lora_" not in name}
    for _ in range(3):
        rollout, _, metrics = trainer.update()
        # the old_logprobs are the policy's own, not vLLM's
        assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
        known = engine_of(trainer).known  # a prefix that is still known from older weights would be wrong
        row = rollout.sequence_ids[0, : int(rollout.prompt_lengths[0])]
        with torch.no_grad():
            torch.testing.assert_close(
                known[tuple(row.tolist())], engine_of(trainer).worker.model(row[None]).logits[0, -1]
            )
    seen = trainer.callbacks[0].seen
    assert len(seen) == 6
    for engine, policy in seen:
        assert engine.keys() == policy.keys()
        assert all(torch.equal(engine[name], policy[name]) for name in policy)
    first, second = seen[0][0], seen[2][0]
    assert sum(not torch.equal(first[name], second[name]) for name in first) == 8
    after = dict(trainer.policy.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in reference.items() if "v_head" not in name)


@sends_all_weights
@pytest.mark.parametrize("ending", ["length", "eos", "second eos", "stop", "special stop"])
def test_responses_end_where_those_of_the_decode_loop_end(tiny_models, pairs, mode, ending):
    """At a temperature at which both engines can only take the most probable token."""
    generation, engine_of = mode
    sampling = SamplingConfig(max_new_tokens=16, temperature=NEARLY_GREEDY)
    trainer = trainer_with(tiny_models, pairs, generation, sampling=sampling)
    trunk, pad = trainer.policy.language_model.transformer, trainer.tokenizer.pad_token_id
    trunk.ln_f.weight.data.mul_(20)  # logits far apart
    if ending == "special stop":
        trunk.ln_f.bias.data.copy_(1e5 * trunk.wte.weight[pad])  # always the most probable token
    trainer.vllm.load_policy()
    engine_of(trainer).eos_token_ids |= set(range(300))  # what it takes for EOS does not count
    prompts = trainer.next_prompts()
    uncut = sample_responses(trainer.policy, trainer.tokenizer, prompts, sampling)
    if ending == "eos":
        trainer.tokenizer.eos_token_id = uncut.response_ids(0)[4]
    elif ending == "second eos":
        trainer.policy.language_model.generation_config.eos_token_id = [319, uncut.response_ids(0)[4]]
    elif ending != "length":
        stop = uncut.texts[0][2:5] or trainer.tokenizer.pad_token  # the text leaves special tokens out
        sampling = trainer.vllm.sampling = dataclasses.replace(sampling, stop=[stop])
        trainer.vllm.is_stop = stop_strings(sampling, trainer.tokenizer)
    ours = sample_responses(trainer.policy, trainer.tokenizer, prompts, sampling)
    theirs = trainer.sample(prompts)
    assert bool(ours.has_eos[0]) == (ending != "length")
    assert int(ours.lengths[0]) < 16 or ending == "length"
    for name in ("sequence_ids", "prompt_lengths", "response_mask", "has_eos"):
        assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
    assert theirs.texts == ours.texts


@sends_all_weights
def test_a_conversation_goes_on_from_what_was_sampled(tiny_models, pairs, mode):
    """Every turn is sent with all before it, whose prefix nobody has dropped; the episodes are the decode loop's."""
    generation, engine_of = mode
    config = make_config(
        tiny_models["gpt2"], pairs, generation=generation, rewards=None,
        environment=EnvironmentSpec(name="talkers.Echo", args={"turns": 2}),
        sampling=SamplingConfig(max_new_tokens=5, temperature=NEARLY_GREEDY),
    )  # fmt: skip
    trainer = build_trainer(config, reward_fn([], config.environment))
    model, llm = trainer.policy.language_model, engine_of(trainer)
    model.transformer.ln_f.weight.data.mul_(20)  # logits far apart
    model.generation_config.eos_token_id = list(range(2, 320, 2))  # so that some turns end
    trainer.vllm.load_policy()
    prompts = trainer.next_prompts()
    llm.asked.clear()
    responses = trainer.sample(prompts)
    expected = respond(prompts, trainer.sampler(torch.Generator()), trainer.tokenizer, trainer.episodes)
    assert torch.equal(responses.sequence_ids, expected.sequence_ids)
    assert torch.equal(responses.response_mask, expected.response_mask)
    assert [each.ending for each in responses.episodes] == [each.ending for each in expected.episodes]
    torch.testing.assert_close(responses.sampler_logprobs, expected.sampler_logprobs, rtol=0, atol=1e-4)
    sent = [ids for ids, _ in llm.asked]
    going_on = [row for row, each in enumerate(responses.episodes) if len(each.rewards) == 2]
    assert 0 < len(going_on) == len(sent) - len(prompts)
    for row in going_on:
        n_prompt, n_response = int(responses.prompt_lengths[row]), int(responses.extents[row])
        heard = int((~responses.response_mask[row, :n_response]).nonzero().max()) + 1  # tokens before the second turn
        whole = responses.sequence_ids[row].tolist()
        assert whole[: n_prompt + heard] in sent[len(prompts) :]
        assert whole[:n_prompt] in sent[: len(prompts)]
        assert tuple(whole[:n_prompt]) in llm.known


def test_every_response_has_a_seed_of_its_own_from_the_trainers_generator(tiny_models, pairs, mode):
    generation, engine_of = mode
    trainer = trainer_with(tiny_models, pairs, generation, num_generations=4)
    prompts, state = trainer.next_prompts(), trainer.generator.get_state()
    first, second = trainer.sample(prompts), trainer.sample(prompts)
    trainer.generator.set_state(state)  # as a resumed run does
    again = trainer.sample(prompts)
    assert [p.prompt_ids for p in prompts[:4]] == [prompts[0].prompt_ids] * 4
    assert len(set(first.texts[:4])) == 4
    assert first.texts == again.texts
    assert set(first.texts).isdisjoint(second.texts)
    assert len({params.seed for _, params in engine_of(trainer).asked}) == 16


def test_engine_is_started_for_the_longest_sequence_of_the_config(tiny_models, pairs, mode):
    """A prompt of max_prompt_tokens leaves room for a whole response."""
    generation, engine_of = mode
    trainer = trainer_with(tiny_models, pairs, generation)
    prompt = dataclasses.replace(trainer.next_prompts()[0], prompt_ids=[5] * 64)
    assert int(trainer.sample([prompt]).lengths) == 10
    if generation.mode == "colocate":
        assert engine_of(trainer).max_model_len == 74


def test_weights_that_a_server_has_from_another_run_are_replaced_at_the_start(tiny_models, pairs, vllm):
    served = vllm_standin.Serve(tiny_models["gpt2"])
    served.llm.worker.model.transformer.wte.weight.data.normal_()
    generation = server(served)
    trainer = trainer_with(tiny_models, pairs, generation)
    ours = trainer.policy.language_model.transformer.wte.weight
    assert torch.equal(served.llm.worker.model.transformer.wte.weight, ours)


@pytest.mark.long
def test_two_processes(tiny_models, pairs, tmp_path):
    """tests/vllm_ranks.py asserts what each rank sees; here it only has to come back from both."""
    given = {"model": str(tiny_models["gpt2"]), "data": pairs}
    (tmp_path / "config.json").write_text(json.dumps(given))
    result = launch("tests/vllm_ranks.py", str(tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("done_*")) == [
        f"done_{part}_{rank}" for part in ("ahead", "colocate", "server") for rank in (0, 1)
    ]


def test_missing_package_is_one_line(tiny_models, pairs):
    with pytest.raises(
        UserError, match=r"generation\.engine vllm .*needs vllm, which is not installed: pip install 'rlhf-ppo\[vllm\]'"
    ):
        trainer_with(tiny_models, pairs)


def test_no_server_is_one_line(tiny_models, pairs, vllm, monkeypatch):
    monkeypatch.setattr(rlhf.sampling.vllm_server, "PATIENCE", 0.0)
    nowhere = GenerationConfig(engine="vllm", mode="server", server_url="http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot use vllm as a server at http://127.0.0.1:9 \(ConnectError: "):
        trainer_with(tiny_models, pairs, nowhere)


def test_a_server_that_never_answers_is_one_line(tiny_models, pairs, vllm, monkeypatch):
    monkeypatch.setattr(rlhf.sampling.vllm_server, "PATIENCE", 0.1)
    monkeypatch.setattr(rlhf.sampling.vllm_server, "SIGN_OF_LIFE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=r"cannot use vllm as a server at http://127.0.0.1:\d+ \(ReadTimeout: "):
            trainer_with(tiny_models, pairs, GenerationConfig(engine="vllm", mode="server", server_url=url))


def test_server_that_takes_no_weights_is_one_line(tiny_models, pairs, vllm):
    served = vllm_standin.Serve(tiny_models["gpt2"], development_mode=False)
    generation = server(served)
    with pytest.raises(UserError, match=r"cannot use vllm as a server .* 404"):
        trainer_with(tiny_models, pairs, generation)


def test_engine_that_does_not_start_is_one_line(tiny_models, pairs, vllm):
    with pytest.raises(UserError, match=r"cannot use vllm in this process \(ValueError: User-specified max_model_len"):
        trainer_with(tiny_models, pairs, max_prompt_tokens=256)


def test_another_vllm_is_one_line(tiny_models, pairs, vllm, monkeypatch):
    """It has a class less that is imported."""
    monkeypatch.delattr(sys.modules["vllm"], "SamplingParams")
    trainer = trainer_with(tiny_models, pairs)
    with pytest.raises(UserError, match=r"^cannot use vllm in this process \(ImportError: .*SamplingParams.*\); "):
        trainer.update()


def test_adapters_of_earlier_updates_are_taken_back(tiny_models, pairs, vllm, tmp_path, monkeypatch):
    """From the server, and from the disk, where a run that was killed may have left some."""
    monkeypatch.chdir(tmp_path)
    served = vllm_standin.Serve(tiny_models["gpt2"])
    folder = Path(make_config("unused", "unused").output_dir) / "vllm_adapters"
    (folder / "policy-0").mkdir(parents=True)
    trainer = trainer_with(tiny_models, pairs, server(served, send="adapters"))
    for _ in range(3):
        trainer.update()
        [version] = folder.iterdir()
        assert set(served.models) == {"served", version.name}


def test_a_server_with_another_base_is_one_line(tiny_models, pairs, vllm):
    served = vllm_standin.Serve(tiny_models["llama"])
    with pytest.raises(UserError, match=rf"serves {tiny_models['llama']}, but the adapters belong to .*gpt2"):
        trainer_with(tiny_models, pairs, server(served, send="adapters"))


def test_a_server_that_takes_no_adapters_is_one_line(tiny_models, pairs, vllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served = vllm_standin.Serve(tiny_models["gpt2"])
    refused = (400, {"error": "LoRA rank 8 is greater than max_lora_rank 4."})
    monkeypatch.setattr(served, "load_adapter", lambda **_: refused)
    with pytest.raises(UserError, match=r"\(RuntimeError: /v1/load_lora_adapter answers 400: .*LoRA rank 8 is greater"):
        trainer_with(tiny_models, pairs, server(served, send="adapters"))


def test_weights_that_are_not_taken_are_one_line(tiny_models, pairs, vllm, monkeypatch):
    """The first sync is at the start; one that fails later is the same line."""

    def refuse(*_):
        raise ValueError("There is no module or parameter named 'wte'")

    trainer = trainer_with(tiny_models, pairs)
    monkeypatch.setattr(vllm_standin.WorkerModel, "load_weights", refuse)
    line = r"^cannot use vllm in this process \(ValueError: There is no module or parameter named 'wte'\); docs/"
    with pytest.raises(UserError, match=line):
        trainer.update()
    with pytest.raises(UserError, match=line):
        trainer_with(tiny_models, pairs)


def test_a_connection_that_breaks_is_made_again(tiny_models, pairs, vllm, monkeypatch):
    def rollout(breaks):
        served = vllm_standin.Serve(tiny_models["gpt2"])
        broken = iter(range(breaks))

        def completions(**body):
            if next(broken, None) is not None:
                raise ConnectionResetError  # there is no answer at all
            return vllm_standin.Serve.completions(served, **body)

        served.completions = completions
        return trainer_with(tiny_models, pairs, server(served)).update().rollout.sequence_ids

    assert torch.equal(rollout(breaks=3), rollout(breaks=0))
    monkeypatch.setattr("rlhf.sampling.vllm_server.BROKEN_CONNECTION", 0.0)
    with pytest.raises(UserError, match=r"^cannot use vllm as a server at .* disconnected without sending a response"):
        rollout(breaks=1)


def test_a_server_that_fails_later_is_one_line(tiny_models, pairs, vllm):
    served = vllm_standin.Serve(tiny_models["gpt2"])
    trainer = trainer_with(tiny_models, pairs, server(served))
    served.completions = lambda **body: (400, {"error": "the engine is dead"})
    with pytest.raises(UserError, match=rf"^cannot use vllm as a server at {served.url} \(.*400"):
        trainer.update()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GenerationConfig(mode="server"), "generation.mode and server_url belong to vllm"),
        (lambda: GenerationConfig(engine="vllm", mode="server"), "mode server needs the address of one"),
        (lambda: GenerationConfig(engine="vllm", server_url="http://x"), "mode colocate has none"),
        (lambda: GenerationConfig(engine="vllm", mode="server", server_url="x:8000"), "must start with http://"),
        (lambda: GenerationConfig(gpu_memory_utilization=1.5), "gpu_memory_utilization is 1.5; it must be between"),
        (lambda: ppo(sampling=SamplingConfig(temperature=3.0)), "temperature is 3.0; vllm takes 0.01 to 2.0"),
        (lambda: ppo(sampling=SamplingConfig(temperature=0.001)), "temperature is 0.001; vllm takes 0.01 to 2.0"),
        (lambda: GenerationConfig(engine="vllm", send="adapters"), "generation.send is adapters, which a server loads"),
        (lambda: ppo(generation=ADAPTERS, lora=None), "send is adapters, but lora is null"),
        (lambda: ppo_with_4bit_base(), "no adapters can be merged for vllm"),
    ],
)
def test_contradictions_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


def ppo(**options) -> PPOConfig:
    return make_config("unused", "unused", **({"generation": COLOCATED} | options))


def ppo_with_4bit_base() -> PPOConfig:
    config = make_config("unused", "unused", generation=COLOCATED)
    return dataclasses.replace(config, model=ModelConfig(name_or_path="unused", quantization="4bit"))


def test_divided_base_is_refused(tiny_models, pairs, vllm):
    trainer = trainer_with(tiny_models, pairs, GenerationConfig())
    trainer.policy.divided_trunks = {torch.nn.Identity(): []}
    config = dataclasses.replace(trainer.config, generation=COLOCATED)
    with pytest.raises(UserError, match="divide the base with fsdp"):
        VLLMSampler(config, trainer.policy, trainer.tokenizer, Accelerator(cpu=True))


@pytest.mark.parametrize("name", ["react_llama_vllm", "react_llama_vllm_server"])
def test_shipped_config_runs(tmp_path, vllm, name):
    folder = save_small_llama(tmp_path / "llama")
    command = f"ppo --config configs/ppo/{name}.yaml --model.name_or_path {folder} --output_dir {tmp_path / 'run'}"
    if name.endswith("server"):
        command += f" --generation.server_url {vllm_standin.Serve(folder).url}"
    main([*command.split(), *SHORT_RUN.split()])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["policy/ratio_first_minibatch"] for row in rows] == pytest.approx([1.0, 1.0], abs=1e-3)  # bfloat16
