"""Every family of models is exact or refused: each as a tiny random one through the command line and the classic loop.

Exact is measured against transformers and PEFT alone, one sequence at a time, without padding and without a cache.
"""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, build, table
from peft import PeftModel
from tiny_data import TEXTS, write_pairs
from transformers import AutoModelForCausalLM

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from rlhf.cli import main
from rlhf.errors import UserError
from rlhf.models.tokenizer import train_tokenizer
from rlhf.policy.files import load_policy
from rlhf.sampling.trial import way_of

PROMPTS = ["Show a button saying Save.", "Show"]
N_TOKENS = 6
RUN = (
    "--num_updates 1 --batch_size 4 --mini_batch_size 4 --micro_batch_size 4 --num_ppo_epochs 1 --learning_rate 1e-2 "
    f"--sampling.max_new_tokens {N_TOKENS} --lora.r 4 --lora.alpha 8 --critic detached --inspect.prompts 0"
).split()
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}
exact = [name for name, row in FAMILIES.items() if row.reads != "refused"]
refused = [name for name, row in FAMILIES.items() if row.reads == "refused"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture
def folder(request, tokenizer, tmp_path) -> Path:
    """The model of the family that the test is about, as `from_pretrained` reads it."""
    build(FAMILIES[request.param]).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def ppo(folder: Path) -> list[str]:
    """A run of one update: its command line."""
    data = write_pairs(folder.parent)
    where = ["--model.name_or_path", str(folder), "--data.train", data, "--output_dir", str(folder.parent / "run")]
    return ["ppo", *where, "--rewards", "[{path: length, args: {maximum: 3}}]", *RUN]


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]


@torch.no_grad()
def greedy(model, ids: list[int], eos: int) -> list[int]:
    """The most likely tokens, each from a pass over all that came before."""
    row = list(ids)
    while len(row) < len(ids) + N_TOKENS and (len(row) == len(ids) or row[-1] != eos):
        row.append(int(logits(model, torch.tensor(row))[-1].argmax()))
    return row[len(ids) :]


@pytest.mark.parametrize(("folder", "name"), [(name, name) for name in exact], indirect=["folder"], ids=exact)
def test_through_the_command_line(folder, name, tokenizer, recwarn):
    main(ppo(folder))
    policy_folder, merged = folder.parent / "run" / "policy", folder.parent / "merged"
    [metrics] = map(json.loads, (folder.parent / "run" / "metrics.jsonl").read_text().splitlines())
    assert metrics["policy/approx_kl"] < 1e-10  # the first ratio is 1: no dropout is left
    assert abs(metrics["objective/kl"]) < 1e-4
    sampling = ["--sampling.temperature", "0", "--sampling.max_new_tokens", str(N_TOKENS)]
    answers, prompts = folder.parent / "answers.jsonl", "[" + ", ".join(PROMPTS) + "]"
    files = ["--output", str(answers), "--merge_to", str(merged)]
    main(["generate", "--model.name_or_path", str(policy_folder), "--prompt", prompts, *sampling, *files])

    base = AutoModelForCausalLM.from_pretrained(folder)
    theirs = PeftModel.from_pretrained(base, policy_folder, is_trainable=True).eval()
    said = [json.loads(line)["completion"] for line in answers.read_text().splitlines()]
    for prompt, found in zip(PROMPTS, said, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        assert found == tokenizer.decode(greedy(theirs, ids, tokenizer.eos_token_id), skip_special_tokens=True)
    ours = AutoModelForCausalLM.from_pretrained(merged).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(ours, torch.tensor(ids)), logits(theirs, torch.tensor(ids)), **ROUNDING)
    assert_same_logprobs_and_gradients(load_policy(policy_folder), theirs, FAMILIES[name].reads)


def assert_same_logprobs_and_gradients(policy, theirs, reads: str) -> None:
    """Of three sequences of 5 + 4, 3 + 2 and 1 + 6 tokens, padded with other tokens."""
    sequence_ids = torch.randint(2, 290, (3, 9), generator=torch.Generator().manual_seed(1))
    prompt_lengths, lengths = torch.tensor([5, 3, 1]), torch.tensor([4, 2, 6])
    mask = torch.arange(6) < lengths.unsqueeze(-1)
    found = policy(sequence_ids, prompt_lengths, mask, temperature=0.7).logprobs
    found.sum().backward()
    total = torch.zeros(())
    for row in range(3):
        start, end = int(prompt_lengths[row]), int(prompt_lengths[row] + lengths[row])
        log_p = (logits(theirs, sequence_ids[row, :end]) / 0.7).log_softmax(-1)[start - 1 : end - 1]
        expected = log_p.gather(-1, sequence_ids[row, start:end].unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(found[row, : lengths[row]], expected, **ROUNDING)
        total = total + expected.sum()
    total.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad and p.grad is not None}
    ours = dict(policy.wrapper.pretrained_model.named_parameters())
    assert gradients
    found, expected = (torch.cat([g.flatten() for g in x]) for x in zip(
        *[(ours[name].grad, gradient) for name, gradient in gradients.items()], strict=True)
    )  # fmt: skip
    assert (found - expected).norm() < 1e-4 * expected.norm()
    assert way_of(policy) == reads


@pytest.mark.parametrize(("folder", "name"), [(name, name) for name in refused], indirect=["folder"], ids=refused)
def test_refused_by_the_command_line(folder, name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(ppo(folder))
    assert stop.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ppo: error")]
    assert len(said) == 1
    assert FAMILIES[name].message in said[0]
    run = folder.parent / "run"
    assert not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", FAMILIES)
def test_through_the_classic_loop(name, tokenizer):
    row = FAMILIES[name]
    settings = PPOConfig(batch_size=2, mini_batch_size=2, ppo_epochs=1)
    wrapper = AutoModelForCausalLMWithValueHead.from_pretrained(build(row))
    if row.reads == "refused" and name != "RWKV, scaled":  # trained in full, it has no adapters to forget
        with pytest.raises(UserError, match=row.message):
            PPOTrainer(settings, wrapper, tokenizer=tokenizer)
        return
    trainer = PPOTrainer(settings, wrapper, tokenizer=tokenizer)
    queries = [torch.tensor(tokenizer.encode(prompt)) for prompt in PROMPTS]
    how = {"return_prompt": False, "max_new_tokens": N_TOKENS, "do_sample": False}
    allowed = {"several": (1, 2), "one": (1,), "none": ()}[row.generates]
    model, responses = trainer.policy.language_model, []
    for batch_size in (2, 1):
        fits = batch_size in allowed
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="samples from another model"):
            responses = trainer.generate(queries, batch_size=batch_size, **how)
            expected = [greedy(model, query.tolist(), tokenizer.eos_token_id) for query in queries]
            assert [response.tolist() for response in responses] == expected
    responses = responses or [torch.tensor([40, 50, 60]), torch.tensor([70, 1])]
    stats = trainer.step(queries, responses, [1.0, 0.0])
    assert stats["ppo/policy/approxkl"] < 1e-10
    assert abs(stats["objective/kl"]) < 1e-4


def test_the_docs_carry_the_table():
    assert table() in Path("docs/reference/models.md").read_text(encoding="utf-8")
    assert len(FAMILIES) >= 30
