"""The one file that learners read: the update it teaches is the package's, and it runs and learns."""

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.config import DataConfig, LoraConfig, PPOConfig, SamplingConfig
from rlhf.maths.kl import kl_estimate
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.ppo.credit import assign_credit
from rlhf.ppo.metrics import rollout_metrics
from rlhf.ppo.rollout import Experience, policy_outputs
from rlhf.ppo.update import ClippedEpochs
from rlhf.rewards import RewardSpec, Scores
from rlhf.sampling.responses import Responses

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "ppo_in_one_file.py"
SCORES = [0.3, -1.2, 2.0, 0.0, 0.7, -0.4]
PROMPT_LENGTHS = [3, 6, 4, 6, 2, 5]
RESPONSE_LENGTHS = [7, 2, 5, 7, 1, 6]  # those shorter than 7 end with EOS
LORA_R = 4
SHUFFLE = 11


@pytest.fixture(scope="module")
def one_file():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("ppo_in_one_file", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def settings(one_file):
    """Narrow clip ranges and a low norm, so that all of them take part."""
    return one_file.Settings(
        lora_r=LORA_R, temperature=0.7, num_ppo_epochs=3, mini_batch_size=4, batch_size=6,
        learning_rate=2e-3, max_grad_norm=0.02, clip_range=0.05, value_clip_range=0.05, vf_coef=0.3, gamma=0.95,
        gae_lambda=0.9, kl_coef=0.1,
    )  # fmt: skip


@pytest.fixture
def tokens():
    """Prompts and responses, ragged both."""
    draw = torch.Generator().manual_seed(3)
    prompts = [torch.randint(20, 300, (n,), generator=draw) for n in PROMPT_LENGTHS]
    return prompts, [torch.randint(20, 300, (n,), generator=draw) for n in RESPONSE_LENGTHS]


@pytest.fixture(params=["gpt2", "llama"])
def networks(request, one_file, tiny_models):
    """The same weights on both sides, in float64: (policy, value head) of the script, and our Policy.

    Adapters and head are not 0, so that KL and values are not either. The model has dropout, which both must turn off.
    """
    folder = tiny_models[request.param]
    dropout = {"gpt2": {"resid_pdrop": 0.1}, "llama": {"attention_dropout": 0.1}}[request.param]

    def base():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, **dropout)

    torch.manual_seed(5)
    policy, value_head = one_file.add_adapters(base(), LORA_R)
    value_head.double()
    for parameter in [*policy.parameters(), *value_head.parameters()]:
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    ours = Policy.with_lora(base(), LoraConfig(r=LORA_R, alpha=2 * LORA_R), "shared").double()
    ours.wrapper.pretrained_model.load_state_dict(policy.state_dict())
    ours.wrapper.v_head.summary.load_state_dict(value_head.state_dict())
    return (policy, value_head), ours, AutoTokenizer.from_pretrained(folder)


def left_padded(tokens, eos):
    """As the script lays rows out: sequence_ids, attention_mask, response_mask."""
    prompts, responses = tokens
    width, length = max(PROMPT_LENGTHS), max(RESPONSE_LENGTHS)
    ids = torch.full((len(prompts), width + length), eos)
    attention_mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start, end = width - len(prompt), width + len(response)
        ids[row, start:end] = torch.cat([prompt, response])
        attention_mask[row, start:end] = 1
    return ids, attention_mask, attention_mask[:, width:].bool()


def without_gaps(tokens, eos) -> Responses:
    """As the package lays rows out."""
    prompts, responses = tokens
    rows = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    lengths = torch.tensor(RESPONSE_LENGTHS)
    return Responses(
        sequence_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=eos),
        prompt_lengths=torch.tensor(PROMPT_LENGTHS),
        response_mask=torch.arange(max(RESPONSE_LENGTHS)) < lengths.unsqueeze(-1),
        has_eos=lengths < max(RESPONSE_LENGTHS),
        texts=[""] * len(rows),
        examples=[None] * len(rows),
    )


def their_update(one_file, networks, settings, tokens, monkeypatch):
    """The script's round after sampling: (rollout, metrics)."""
    (policy, value_head), _, tokenizer = networks
    laid_out = left_padded(tokens, tokenizer.eos_token_id)
    monkeypatch.setattr(one_file, "DEVICE", "cpu")
    monkeypatch.setattr(one_file, "sample", lambda *_: (*laid_out, [""] * len(SCORES)))
    scores = iter(SCORES)
    monkeypatch.setattr(one_file, "reward", lambda *_: next(scores))
    rollout, _ = one_file.collect(policy, value_head, tokenizer, [""] * len(SCORES), settings)
    optimizer = one_file.make_optimizer(policy, value_head, settings.learning_rate)
    torch.manual_seed(SHUFFLE)
    return rollout, one_file.curves(rollout) | one_file.ppo_update(policy, value_head, optimizer, rollout, settings)


def our_update(networks, settings, tokens):
    """The package's round after sampling: (rollout, metrics)."""
    _, policy, tokenizer = networks
    config = PPOConfig(
        data=DataConfig(train="given"), rewards=[RewardSpec(path="length")], batch_size=settings.batch_size,
        mini_batch_size=settings.mini_batch_size, micro_batch_size=3, num_ppo_epochs=settings.num_ppo_epochs,
        critic="shared",
        learning_rate=settings.learning_rate, critic_learning_rate=settings.learning_rate,
        max_grad_norm=settings.max_grad_norm, clip_range=settings.clip_range, vf_coef=settings.vf_coef,
        value_clip_range=settings.value_clip_range, gamma=settings.gamma, gae_lambda=settings.gae_lambda,
        kl_coef=settings.kl_coef, sampling=SamplingConfig(temperature=settings.temperature),
    )  # fmt: skip
    responses = without_gaps(tokens, tokenizer.eos_token_id)

    def evaluated(*, with_values):
        asked = {"with_values": with_values, "with_entropy": with_values}
        return policy_outputs(policy, responses, settings.temperature, 3, **asked)

    with policy.reference():
        ref = evaluated(with_values=False)
    old = evaluated(with_values=True)
    experience = Experience(
        **vars(responses), old_logprobs=old.logprobs, ref_logprobs=ref.logprobs, entropy=old.entropy,
        old_values=old.values, kl=kl_estimate(old.logprobs, ref.logprobs),
    )  # fmt: skip
    raw = Scores(SCORES, {}, [[] for _ in SCORES])
    rollout = assign_credit(config, experience, torch.tensor(SCORES), raw, settings.kl_coef, tokenizer)
    epochs = ClippedEpochs(config, policy, Ranks(), torch.Generator().manual_seed(SHUFFLE))
    return rollout, rollout_metrics(rollout, raw, settings.kl_coef, True) | epochs.run(rollout, 1.0, critic_only=False)


def test_its_update_is_the_package_s(one_file, networks, settings, tokens, monkeypatch):
    (policy, value_head), our_policy, _ = networks
    before = {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}
    theirs, their_metrics = their_update(one_file, networks, settings, tokens, monkeypatch)
    ours, our_metrics = our_update(networks, settings, tokens)

    mask = ours.response_mask
    assert torch.equal(theirs.response_mask, mask)
    for name in ("old_logprobs", "old_values", "entropy", "kl", "advantages", "returns"):
        torch.testing.assert_close(getattr(theirs, name)[mask], getattr(ours, name)[mask], rtol=0, atol=1e-6)
    same = {
        "score": "objective/score", "kl": "objective/kl", "length": "response/length", "entropy": "objective/entropy",
        "explained_variance": "critic/explained_variance", "clip_fraction": "policy/clip_fraction",
        "approx_kl": "policy/approx_kl", "ratio_mean": "policy/ratio_mean", "policy_loss": "policy/loss",
        "value_loss": "critic/loss",
    }  # fmt: skip
    for name, our_name in same.items():
        assert their_metrics[name] == pytest.approx(our_metrics[our_name], abs=1e-6), name
    assert abs(our_metrics["objective/kl"]) > 0.1
    assert 0.1 < our_metrics["policy/clip_fraction"] < 0.9  # both branches of both clips were taken
    assert 0.1 < our_metrics["critic/clip_fraction"] < 0.9
    assert min(our_metrics["policy/grad_norm"], our_metrics["critic/grad_norm"]) > settings.max_grad_norm

    our_parameters = dict(our_policy.wrapper.pretrained_model.named_parameters())
    for name, p in policy.named_parameters():
        torch.testing.assert_close(p, our_parameters[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert name not in before or (p - before[name]).abs().max() > 1e-3
    for p, q in zip(value_head.parameters(), our_policy.wrapper.v_head.summary.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@pytest.fixture
def sampler(one_file, tiny_models, monkeypatch):
    """(policy, tokenizer) whose model brings along a wish for the first tokens of the vocabulary only."""
    monkeypatch.setattr(one_file, "DEVICE", "cpu")
    model, tokenizer = one_file.load_model(str(tiny_models["gpt2"]))
    model.generation_config.suppress_tokens = list(range(20, 320))
    torch.manual_seed(0)
    return one_file.add_adapters(model, LORA_R)[0], tokenizer


def test_samples_come_from_the_distribution_that_is_evaluated(one_file, sampler, settings):
    """Whatever the model's own generation config says."""
    sequence_ids, _, mask, _ = one_file.sample(*sampler, 32 * ["Show"], settings)
    assert (sequence_ids[:, -mask.shape[1] :] >= 20).float().mean() > 0.5


def test_responses_follow_their_prompts_and_end_with_eos(one_file, sampler, settings):
    policy, tokenizer = sampler
    prompts = 16 * ["Show a button", "Show"]
    width = len(tokenizer(prompts[0]).input_ids)
    frequent = one_file.sample(policy, tokenizer, prompts, settings)[0][:, width:].flatten().mode().values
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(frequent))
    sequence_ids, attention_mask, mask, texts = one_file.sample(policy, tokenizer, prompts, settings)
    has_eos = 0
    for row, prompt in enumerate(prompts):
        prompt_ids, response = tokenizer(prompt).input_ids, sequence_ids[row, width:].tolist()
        assert sequence_ids[row, width - len(prompt_ids) : width].tolist() == prompt_ids
        has_eos += tokenizer.eos_token_id in response
        length = [*response, tokenizer.eos_token_id].index(tokenizer.eos_token_id) + 1
        assert mask[row].tolist() == [t < length for t in range(mask.shape[1])]
        real = [width - len(prompt_ids) <= i < width + length for i in range(sequence_ids.shape[1])]
        assert attention_mask[row].tolist() == real
        assert texts[row] == tokenizer.decode(response[:length], skip_special_tokens=True)
    assert 0 < has_eos < len(prompts)


def test_the_reward_counts_whole_words(one_file):
    assert one_file.reward("The film was", "good, great and warm.") == pytest.approx(0.6)
    assert one_file.reward("The film was", "Dull , coldest , good !") == 0.0
    assert one_file.reward("The film was", "") == 0.0


def test_reviews_are_within_the_tokens_of_the_tiny_model(one_file):
    random.seed(0)
    torch.manual_seed(0)
    model, tokenizer = one_file.make_model(max_new_tokens=8, steps=1)
    review = one_file.write_review()
    ids = tokenizer(review).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids).replace(" ", "") == review.replace(" ", "")
    assert max(len(tokenizer(p).input_ids) for p in one_file.PROMPTS) + 8 <= model.config.n_positions


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def table_of(stdout: str) -> dict[str, list[float]]:
    header, *rest = stdout.splitlines()
    rows = [line.split() for line in rest if re.match(r" +\d+ ", line)]
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(header.split())}


@pytest.mark.long
def test_it_prints_its_table_and_learns():
    done = run("--num_updates", "8")
    assert done.returncode == 0, done.stderr
    table = table_of(done.stdout)
    assert table["update"] == list(range(1, 9))
    assert set(table) >= {"score", "kl", "length", "entropy", "explained_variance", "clip_fraction"}
    assert table["kl"][0] == 0.0
    assert table["explained_variance"][0] == 0.0
    assert table["score"][-1] > table["score"][0] + 0.4


def test_it_takes_models_from_a_folder(tiny_models):
    small = ("--num_updates", "2", "--batch_size", "4", "--mini_batch_size", "2", "--max_new_tokens", "4")
    done = run("--model", str(tiny_models["llama"]), *small)
    assert done.returncode == 0, done.stderr
    assert table_of(done.stdout)["update"] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0"], "temperature"),
        (["--gama", "1"], "gama"),
        (["--mini_batch_size", "65"], "mini_batch_size 65 is larger than batch_size 64"),
    ],
)
def test_it_refuses_what_makes_no_sense(one_file, arguments, message, capsys):
    with pytest.raises(SystemExit) as refused:
        one_file.main(one_file.auto_cli(one_file.Settings, args=arguments))
    assert message in capsys.readouterr().err + str(refused.value)


def test_its_task_may_score_in_whole_numbers(one_file, tiny_models, settings, monkeypatch):
    monkeypatch.setattr(one_file, "DEVICE", "cpu")
    monkeypatch.setattr(one_file, "reward", lambda prompt, response: len(response))
    model, tokenizer = one_file.load_model(str(tiny_models["llama"]))
    rollout, texts = one_file.collect(*one_file.add_adapters(model, LORA_R), tokenizer, 2 * ["Show a"], settings)
    assert one_file.curves(rollout)["score"] == sum(map(len, texts)) / 2


def test_it_stays_one_short_file():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 320
    imported = set(re.findall(r"^(?:from|import) (rlhf[\w.]*)", text, re.MULTILINE))
    assert imported <= {"rlhf.maths.advantages", "rlhf.maths.kl", "rlhf.maths.losses", "rlhf.maths.tensors"}
