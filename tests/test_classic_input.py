"""What scripts bring to the classic loop: padded rows, rows of one token, masks with gaps, streams, settings."""

import random
import warnings

import pytest
import torch
from tiny_classic import PROMPTS, RESPONSES, SMALL, make_trainer, parameters, prompt_ids
from torch.utils.data import IterableDataset
from transformers import AutoTokenizer, LogitsProcessorList, MinPLogitsWarper

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from rlhf.classic.padding import unpadded_queries, unpadded_response
from rlhf.errors import UserError

SAMPLING = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6}
SCORES = [1.0, 0.0, 2.0, -1.0]


@pytest.fixture
def folder(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture
def queries(folder):
    return prompt_ids(folder)


def assert_same(a: PPOTrainer, b: PPOTrainer, atol: float = 0.0) -> None:
    for name, parameter in parameters(a).items():
        torch.testing.assert_close(parameter, parameters(b)[name], rtol=0, atol=atol, msg=name)


# ---------------------------------------------------------------- pad tokens in the rows


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["eos", "own"])
def test_queries_that_a_tokenizer_padded_count_without_their_padding(folder, queries, side, pad):
    a, b = make_trainer(folder), make_trainer(folder)
    tokenizer = b.tokenizer
    tokenizer.padding_side = side
    tokenizer.pad_token_id = tokenizer.eos_token_id if pad == "eos" else 7
    padded = tokenizer(PROMPTS, padding=True, return_tensors="pt")["input_ids"]
    assert padded.shape == (4, max(map(len, queries)))
    a.step(queries, RESPONSES, SCORES)
    with pytest.warns(UserWarning, match="3 of 4 rows have pad tokens at an edge.*they are taken off"):
        stats = b.step(list(padded), RESPONSES, SCORES)
    assert stats["tokens/queries_dist"].tolist() == [len(q) for q in queries]
    assert_same(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b.step(list(padded), RESPONSES, SCORES)  # said once


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_generated_from_padded_queries(folder, queries, side):
    """The responses to the text, behind the queries as they were given; `step` takes those off."""
    trainer = make_trainer(folder)
    trainer.tokenizer.padding_side, trainer.tokenizer.pad_token_id = side, 7
    padded = list(trainer.tokenizer(PROMPTS, padding=True, return_tensors="pt")["input_ids"])
    torch.manual_seed(0)
    bare = trainer.generate(queries, return_prompt=False, **SAMPLING)
    torch.manual_seed(0)
    whole = trainer.generate(padded, **SAMPLING)
    assert [r.tolist() for r in whole] == [[*q.tolist(), *r.tolist()] for q, r in zip(padded, bare, strict=True)]
    with pytest.warns(UserWarning, match="pad tokens"):
        stats = trainer.step(padded, whole, SCORES)
    assert stats["tokens/responses_dist"].tolist() == [len(r) for r in bare]


class Tokenizer:
    """Of which padding asks the names of three tokens, and how a letter is encoded."""

    def __init__(self, pad=9, bos=1, eos=2, adds_bos=False):
        self.pad_token_id, self.bos_token_id, self.eos_token_id, self.adds_bos = pad, bos, eos, adds_bos

    def __call__(self, text):
        return {"input_ids": [self.bos_token_id, 50] if self.adds_bos else [50]}


@pytest.mark.parametrize(
    ("tokenizer", "given", "expected"),
    [
        (Tokenizer(), [[9, 9, 5, 6], [5, 6, 9]], [[5, 6], [5, 6]]),
        (Tokenizer(), [[5, 9, 6]], [[5, 9, 6]]),  # in the middle it is text
        (Tokenizer(pad=None), [[9, 9, 5]], [[9, 9, 5]]),
        (Tokenizer(pad=2), [[2, 5, 6], [7, 8]], [[2, 5, 6], [7, 8]]),  # once, in rows of any length: on purpose
        (Tokenizer(pad=2), [[2, 5, 6], [2, 7, 8]], [[2, 5, 6], [2, 7, 8]]),  # once in every row: on purpose
        (Tokenizer(pad=2), [[2, 5, 6], [6, 7, 8]], [[5, 6], [6, 7, 8]]),  # in some rows of the same length
        (Tokenizer(pad=2), [[2, 2, 2, 5]], [[5]]),
        (Tokenizer(pad=2), [[5, 2, 2], [5, 6, 7]], [[5], [5, 6, 7]]),
        (Tokenizer(pad=2, bos=2, adds_bos=True), [[2, 2, 2, 5], [2, 5, 6, 7]], [[2, 5], [2, 5, 6, 7]]),
        (Tokenizer(pad=2), [[2]], [[2]]),  # the usual start of a text out of nothing
    ],
)
def test_what_is_padding(tokenizer, given, expected):
    rows = unpadded_queries([torch.tensor(row) for row in given], tokenizer)
    assert [row.tolist() for row in rows] == expected


def test_a_query_of_padding_alone_is_refused():
    with pytest.raises(UserError, match=r"queries\[1\] is 2 pad tokens"):
        unpadded_queries([torch.tensor([5, 6]), torch.tensor([9, 9])], Tokenizer())


@pytest.mark.parametrize(
    ("pad", "given", "expected"),
    [(9, [5, 2, 9, 9], [5, 2]), (2, [5, 2, 2, 2], [5, 2]), (2, [5, 6, 2], [5, 6, 2]), (9, [9, 9], [9])],
)
def test_the_padding_behind_a_response(pad, given, expected):
    assert unpadded_response(torch.tensor(given), Tokenizer(pad=pad)).tolist() == expected


def test_responses_that_generate_of_transformers_padded(folder, queries):
    a, b = make_trainer(folder), make_trainer(folder)
    eos = b.tokenizer.pad_token_id = b.tokenizer.eos_token_id
    ended = [torch.tensor([*ids, eos]) for ids in ([31, 40, 52], [40, 300, 41, 99, 33], [77], [35, 36, 37, 38])]
    padded = [torch.cat([r, torch.full((7 - len(r),), eos)]) for r in ended]
    a.step(queries, ended, SCORES)
    with pytest.warns(UserWarning, match="4 of 4 rows have pad tokens"):
        b.step(queries, padded, SCORES)
    assert_same(a, b)


def test_a_pad_token_without_a_row_in_the_embeddings(folder, queries):
    """What stands in front of a short query is masked, whatever it is."""
    plain, added = make_trainer(folder), make_trainer(folder)
    added.tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    assert added.tokenizer.pad_token_id >= added.policy.language_model.get_input_embeddings().weight.shape[0]
    how = {"return_prompt": False, "max_new_tokens": 4, "do_sample": False}
    found, expected = ([row.tolist() for row in t.generate(queries, batch_size=4, **how)] for t in (added, plain))
    assert found == expected


# ---------------------------------------------------------------- rows of one token


def test_rows_of_one_token(folder, queries):
    """`squeeze()` leaves no dimension of them."""
    a, b = make_trainer(folder), make_trainer(folder)
    one = torch.tensor(40)
    stats = a.step([q[0] for q in queries], [r[:1] for r in RESPONSES], SCORES)
    b.step([q[:1] for q in queries], [r[0].squeeze() for r in RESPONSES], SCORES)
    assert stats["tokens/queries_len_mean"] == stats["tokens/responses_len_mean"] == 1.0
    assert_same(a, b)
    assert a.generate(one, **SAMPLING | {"max_new_tokens": 1}).shape == (1, 2)


# ---------------------------------------------------------------- masks with gaps

TOOL = [[31, 40, 52, 61, 62, 77], [40, 300, 41, 99, 33], [77, 78, 1], [35, 36, 37, 38]]
MASKS = [[1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0], [0, 0, 1], [1, 1, 1, 1]]


def oracle_gradient(trainer, queries, scores):
    """The gradient of the loss at the policy that sampled, in float64, one token after another."""
    config, model = trainer.config, trainer.model.double()
    reference = trainer.ref_model.double()
    value_losses, policy_losses, advantages, rows = [], [], [], []
    for query, ids, mask, score in zip(queries, TOOL, MASKS, scores, strict=True):
        tokens = torch.cat([query, torch.tensor(ids)])[None]
        logits, _, values = model(tokens)
        with torch.no_grad():
            ref_logits = reference(tokens)[0]
        places = [t for t, chosen in enumerate(mask) if chosen]
        before = [len(query) + t - 1 for t in places]
        logprobs = [logits[0, b].log_softmax(-1)[ids[t]] for b, t in zip(before, places, strict=True)]
        ref = [ref_logits[0, b].log_softmax(-1)[ids[t]] for b, t in zip(before, places, strict=True)]
        rewards = [-config.init_kl_coef * float((p - q).detach()) for p, q in zip(logprobs, ref, strict=True)]
        rewards[-1] += score
        v = [values[0, b] for b in before]
        after = value_after = 0.0
        returns = []
        for r, value in zip(reversed(rewards), reversed(v), strict=True):
            after = r + config.gamma * value_after - float(value.detach()) + config.gamma * config.lam * after
            value_after = float(value.detach())
            returns.append(after + value_after)
            advantages.append(after)
        rows += list(zip(reversed(logprobs), reversed(v), returns, strict=True))
    a = torch.tensor(advantages, dtype=torch.float64)
    a = (a - a.mean()) / (a.var(correction=0) + 1e-8).sqrt()
    for (logprob, value, target), advantage in zip(rows, a, strict=True):
        policy_losses.append(-advantage * torch.exp(logprob - logprob.detach()))
        value_losses.append(0.5 * (value - target) ** 2)
    loss = torch.stack(policy_losses).mean() + config.vf_coef * torch.stack(value_losses).mean()
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(loss, parameters)
    model.float(), reference.float()
    return gradient


@pytest.mark.parametrize("mini_batch_size", [4, 2])
def test_a_tools_answer_is_read_and_not_learned_from(folder, queries, mini_batch_size):
    """The step's gradient is that of a slow oracle, which knows of each sequence's own tokens only."""
    accumulation = 4 // mini_batch_size
    trainer = make_trainer(folder, mini_batch_size=mini_batch_size, gradient_accumulation_steps=accumulation)
    with torch.no_grad():
        for parameter in trainer.policy.policy_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # leaves the reference
    expected = oracle_gradient(trainer, queries, SCORES)
    stats = trainer.step(queries, [torch.tensor(ids) for ids in TOOL], SCORES, [torch.tensor(m) for m in MASKS])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    # the parameters have moved by one step of Adam since, their gradients are those of that step
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=2e-3, atol=2e-6)
    assert stats["tokens/responses_dist"].tolist() == [4, 2, 1, 4]
    assert len(stats["ppo/policy/advantages"]) == 11


def test_the_words_of_the_tool_matter_to_what_follows_only(folder, queries):
    """Other words behind the last own token change nothing, in a gap they do."""
    responses, masks = [torch.tensor(ids) for ids in TOOL], [torch.tensor(m) for m in MASKS]
    a, b, c = (make_trainer(folder) for _ in range(3))
    a.step(queries, responses, SCORES, masks)
    behind, inside = [r.clone() for r in responses], [r.clone() for r in responses]
    behind[1][3:] = 5
    inside[0][2:4] = 5
    b.step(queries, behind, SCORES, masks)
    c.step(queries, inside, SCORES, masks)
    assert_same(a, b)
    assert any(not torch.equal(p, parameters(c)[name]) for name, p in parameters(a).items())


def test_a_reward_per_token_lands_on_own_tokens(folder, queries):
    responses, masks = [torch.tensor(ids) for ids in TOOL], [torch.tensor(m) for m in MASKS]
    a, b = make_trainer(folder), make_trainer(folder)
    per_token = [torch.tensor([0.0] * last + [score]) for last, score in zip((5, 2, 2, 3), SCORES, strict=True)]
    a.step(queries, responses, SCORES, masks)
    b.step(queries, responses, per_token, masks)
    assert_same(a, b)
    per_token[0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    with pytest.raises(UserError, match=r"scores\[0\] pays token \[2\], which response_masks\[0\] leaves out"):
        b.step(queries, responses, per_token, masks)


# ---------------------------------------------------------------- data


class Stream(IterableDataset):
    def __iter__(self):
        for number in range(7):
            yield {"query": f"prompt {number}", "input_ids": [number + 1]}


def test_data_that_comes_as_a_stream(folder):
    from datasets import Dataset

    def collate(rows):
        return {name: [row[name] for row in rows] for name in rows[0]}

    rows = Dataset.from_dict({"query": [f"prompt {n}" for n in range(7)], "title": ["x"] * 7}).to_iterable_dataset()
    for dataset in (Stream(), rows):
        model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with pytest.warns(UserWarning, match="dataset is a stream and comes in its own order"):
            trainer = PPOTrainer(PPOConfig(**SMALL), model, None, tokenizer, dataset, data_collator=collate)
        [batch] = list(trainer.dataloader)
        assert batch["query"] == [f"prompt {n}" for n in range(4)]
        assert "title" not in batch


def test_a_batch_size_that_the_dataloader_does_not_have(folder, queries):
    trainer = make_trainer(folder, dataset=[{"input_ids": [1, 2]}] * 8)
    trainer.config.batch_size = 8
    with pytest.raises(UserError, match=r"config\.batch_size is 8, but the dataloader gives 4 rows; make another"):
        trainer.step(queries, RESPONSES, SCORES)
    trainer.dataloader = trainer.prepare_dataloader(trainer.dataset)
    assert trainer.step(queries, RESPONSES, SCORES)["ppo/mean_scores"] == 0.5


# ---------------------------------------------------------------- settings of generate


@pytest.mark.parametrize(
    "setting",
    [
        {"min_p": 0.1}, {"typical_p": 0.9}, {"epsilon_cutoff": 3e-4}, {"eta_cutoff": 3e-4}, {"top_h": 0.5},
        {"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}, {"bad_words_ids": [[40]]},
        {"suppress_tokens": [40]}, {"begin_suppress_tokens": [40]}, {"sequence_bias": [[[40], 2.0]]},
        {"forced_eos_token_id": 1}, {"exponential_decay_length_penalty": (2, 1.5)}, {"min_new_tokens": 2},
        {"min_length": 20}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.5}, {"do_sample": False},
        {"logits_processor": LogitsProcessorList([MinPLogitsWarper(0.2)])},
        {"prefix_allowed_tokens_fn": lambda row, ids: [40, 41]},
    ],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_what_changes_the_distribution_is_said(folder, queries, setting):
    trainer = make_trainer(folder)
    with pytest.warns(UserWarning, match=rf"generate samples with {next(iter(setting))}.*than sampled"):
        responses = trainer.generate(queries, **SAMPLING | setting)
    assert len(responses) == 4


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"max_new_token": 5}, "generate got max_new_token=5, which transformers does not know"),
        ({"remove_padding": False}, "generate got remove_padding=False, which transformers does not know"),
        ({"attention_mask": torch.ones(4, 3)}, "generate got attention_mask; it is made here"),
        ({"num_beams": 3}, "generate got num_beams=3; PPO learns from one sample per query: 1"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"force_words_ids": [[[5]]]}, r"force_words_ids=\[\[\[5\]\]\]"),
    ],
)
def test_what_generate_does_not_take(folder, queries, setting, line):
    with pytest.raises(UserError, match=line):
        make_trainer(folder).generate(queries, **SAMPLING | setting)


def test_settings_that_change_nothing_are_quiet(folder, queries):
    random.seed(0)
    neutral = {"min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1}
    neutral |= {"suppress_tokens": [], "min_length": -1, "bad_words_ids": None, "use_cache": True, "max_time": 60.0}
    trainer = make_trainer(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(trainer.generate(queries, **SAMPLING | neutral)) == len(queries)


def test_responses_of_the_reference(folder, queries):
    """At first the same greedy ones, later others."""
    for peft in (False, True):
        trainer = make_trainer(folder, peft, learning_rate=0.1)
        greedy = {"do_sample": False, "max_new_tokens": 8, "return_prompt": False, "generate_ref_response": True}
        with pytest.warns(UserWarning, match="do_sample=False"):
            ours, first = trainer.generate(queries, **greedy)
        assert [r.tolist() for r in ours] == [r.tolist() for r in first]
        trainer.step(queries, RESPONSES, SCORES)
        trainer.step(queries, RESPONSES, SCORES)
        moved, theirs = trainer.generate(queries, **greedy)
        assert [r.tolist() for r in theirs] == [r.tolist() for r in first]
        assert [r.tolist() for r in moved] != [r.tolist() for r in first]
        one, reference = trainer.generate(queries[0], **greedy)
        assert one.shape[0] == reference.shape[0] == 1
        assert reference[0].tolist() == first[0].tolist()


def test_a_horizon_that_could_turn_the_penalty_around():
    with pytest.raises(UserError, match=r"^horizon is 1\.5, at most a fifth of batch_size 8.* make it at least 8$"):
        PPOConfig(batch_size=8, mini_batch_size=8, horizon=1.5)
    PPOConfig(batch_size=8, mini_batch_size=8, horizon=1.5, adap_kl_ctrl=False)
