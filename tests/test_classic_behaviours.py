"""What TRL 0.11's own tests of PPOTrainer, BestOfNSampler and create_reference_model asked for, in words of our own.

docs/dev/trl.md lists them, and which of them are answered differently here.
"""

import copy
import math
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM, GenerationConfig

from rlhf import (
    AutoModelForCausalLMWithValueHead,
    BestOfNSampler,
    LengthSampler,
    PPOConfig,
    PPOTrainer,
    create_reference_model,
    respond_to_batch,
)
from rlhf.config import LoraConfig
from rlhf.errors import UserError
from rlhf.models.load import lora_adapters

STATS = [
    "objective/kl", "objective/kl_dist", "objective/logprobs", "objective/ref_logprobs", "objective/kl_coef",
    "objective/entropy", "ppo/mean_non_score_reward", "ppo/loss/policy", "ppo/loss/value", "ppo/loss/total",
    "ppo/policy/entropy", "ppo/policy/approxkl", "ppo/policy/policykl", "ppo/policy/clipfrac",
    "ppo/policy/advantages", "ppo/policy/advantages_mean", "ppo/policy/ratio", "ppo/returns/mean", "ppo/returns/var",
    "ppo/val/vpred", "ppo/val/error", "ppo/val/clipfrac", "ppo/val/mean", "ppo/val/var", "ppo/val/var_explained",
    "time/ppo/forward_pass", "time/ppo/compute_rewards", "time/ppo/optimize_step", "time/ppo/calc_stats",
    "time/ppo/total", "ppo/learning_rate",
]  # fmt: skip
QUERIES = [torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 4, 5, 6, 7])]
RESPONSES = [torch.tensor([5, 6, 7, 8, 9]), torch.tensor([8, 9, 10, 11, 12, 13])]
TWO = {"batch_size": 2, "mini_batch_size": 1}


class Pairs(torch.utils.data.Dataset):
    """Two queries and responses of one length."""

    def __len__(self):
        return 2

    def __getitem__(self, row):
        return torch.arange(30, 37), torch.arange(40 + row, 47 + row)


@pytest.fixture
def folder(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture
def model(folder):
    torch.manual_seed(0)
    return AutoModelForCausalLMWithValueHead.from_pretrained(folder)


@pytest.fixture
def tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture
def make(model, tokenizer):
    def build(ref_model=None, given=None, **arguments):
        settings = {name: arguments.pop(name) for name in list(arguments) if hasattr(PPOConfig(), name)}
        trainer = PPOTrainer(
            config=PPOConfig(**TWO | settings),
            model=given or model,
            ref_model=ref_model,
            tokenizer=tokenizer,
            **{"dataset": Pairs()} | arguments,
        )
        trainer.optimizer.zero_grad = partial(trainer.optimizer.zero_grad, set_to_none=False)
        return trainer

    return build


def train(trainer, rewards=(1.0, 0.0), masks=False):
    [(queries, responses)] = trainer.dataloader
    scores = [torch.tensor(reward) for reward in rewards]
    given = [[torch.ones_like(r) for r in responses]] if masks else []
    return trainer.step(list(queries), list(responses), scores, *given)


def check_step(trainer, stats):
    """All statistics are there, all that is trained has a gradient, the reference has none."""
    assert not set(STATS) - stats.keys()
    assert all(p.grad is not None for p in trainer.model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in (trainer.ref_model or torch.nn.Module()).parameters())


def test_a_dataset_of_less_than_a_batch(make):
    with pytest.raises(UserError, match="dataset has 2 rows, fewer than batch_size 3"):
        make(batch_size=3)


@pytest.mark.parametrize("masks", [False, True])
def test_a_step_with_a_reference(make, model, masks):
    trainer = make(copy.deepcopy(model))
    check_step(trainer, train(trainer, masks=masks))


def test_a_step_without_a_reference(make, folder):
    trainer = make()
    check_step(trainer, train(trainer))
    original = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, parameter in trainer.ref_model.pretrained_model.named_parameters():
        assert torch.equal(parameter, original[name])


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_step_with_ones_own_optimizer(make, model, scheduled):
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(sgd, gamma=0.9) if scheduled else None
    trainer = make(optimizer=sgd, lr_scheduler=scheduler)
    assert trainer.optimizer.optimizer is sgd
    assert getattr(trainer.lr_scheduler, "scheduler", None) is scheduler
    train(trainer)
    stats = train(trainer)
    check_step(trainer, stats)
    assert stats["ppo/learning_rate"] == pytest.approx(0.009 if scheduled else 0.01)


def test_shared_layers_are_frozen(make, model):
    trainer = make(num_shared_layers=1)
    check_step(trainer, train(trainer))
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.grad is None) == (".h.0." in name or "wte" in name or "wpe" in name), name


def test_shared_layers_beside_a_reference_are_answered_by_a_warning(make, model):
    with pytest.warns(UserWarning, match="num_shared_layers has no effect"):
        make(copy.deepcopy(model), num_shared_layers=1)


def test_the_shape_of_rewards(make):
    trainer = make()
    [(queries, responses)] = trainer.dataloader
    with pytest.raises(ValueError, match="scores"):
        trainer.step(list(queries), list(responses), [torch.tensor([[1.0]]), torch.tensor([[0.0]])])
    trainer.step(list(queries), list(responses), [torch.tensor([1.0]), torch.tensor([0.0])])


def test_the_checked_inputs(make):
    queries, responses, scores, masks = make()._step_safety_checker(
        2, [torch.arange(7)] * 2, [torch.arange(7)] * 2, [torch.tensor([1.0]), torch.tensor(0.0)]
    )
    assert [tuple(row.shape) for row in queries + responses] == [(7,)] * 4
    assert torch.stack([score.squeeze() for score in scores]).tolist() == [1.0, 0.0]
    assert masks is None


def test_without_a_dataset(make, model):
    """One query, one response; TRL warned of the batch size, which may be any here."""
    query = torch.arange(30, 37)[None]
    response = respond_to_batch(model, query)
    assert response.shape == (1, 20)
    trainer = make(copy.deepcopy(model), dataset=None, batch_size=1)
    check_step(trainer, trainer.step([query[0]], [response[0]], [torch.tensor([1.0])]))


def masked(x, mask):
    return x[mask.bool()][None]


def test_the_loss(make, model):
    """By hand, and the same without the columns outside the mask."""
    trainer = make()
    inputs = trainer.prepare_model_inputs(QUERIES, RESPONSES)
    logprobs, _, values, mask = trainer.batched_forward_pass(model, QUERIES, RESPONSES, inputs)
    assert mask.sum(-1).tolist() == [5, 6]
    ref_logprobs, vpreds = logprobs + 1, values + 0.1
    scores = torch.tensor([1.0, 2.0])
    values = values.detach()
    rewards, non_score, kl = trainer.compute_rewards(scores, logprobs, ref_logprobs, mask)
    assert kl[mask.bool()].tolist() == pytest.approx([-1.0] * 11)
    assert non_score[mask.bool()].tolist() == pytest.approx([0.2] * 11)
    assert rewards.sum(-1).tolist() == pytest.approx([5 * 0.2 + 1, 6 * 0.2 + 2])
    values, advantages, returns = trainer.compute_advantages(values, rewards, mask)
    assert float(advantages[mask.bool()].mean()) == pytest.approx(0.0, abs=1e-6)
    tensors = logprobs, values, logprobs[..., None].exp(), vpreds, ref_logprobs, mask, advantages, returns
    row = [x[:1] for x in tensors]
    policy, value, stats = trainer.loss(*row)
    a, r, v = (x[0][mask[0].bool()] for x in (advantages, returns, values))
    by_hand = torch.maximum(-a * math.e, -a * 1.2).mean()
    assert float(policy) == pytest.approx(float(by_hand), rel=1e-4)
    assert float(value) == pytest.approx(0.1 * 0.5 * float(((v + 0.1 - r) ** 2).mean()), rel=1e-4)
    assert float(stats["loss/total"]) == pytest.approx(float(policy + value))
    policy_again, value_again, _ = trainer.loss(*[masked(x, mask[:1]) if x.ndim == 2 else x[:, :5] for x in row])
    assert float(policy_again) == pytest.approx(float(policy), rel=1e-5)
    assert float(value_again) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "bloom"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_forward_pass_does_not_depend_on_the_batch(make, tokenizer, architecture, side):
    """One row alone, two rows one by one, two rows together."""
    tokenizer.padding_side = side
    given = None
    if architecture == "bloom":
        torch.manual_seed(0)
        bloom = BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2))
        given = AutoModelForCausalLMWithValueHead.from_pretrained(bloom)
    trainer = make(given=given)
    results = []
    for rows, size in ((1, 1), (2, 1), (2, 2)):
        trainer.config.mini_batch_size, trainer.config.batch_size = size, rows
        inputs = trainer.prepare_model_inputs(QUERIES[:rows], RESPONSES[:rows])
        logprobs, logits, values, mask = trainer.batched_forward_pass(
            trainer.model, QUERIES[:rows], RESPONSES[:rows], inputs
        )
        assert logits is None
        results.append([(logprobs[row][mask[row].bool()], values[row][mask[row].bool()]) for row in range(rows)])
    for one, other in ((results[0][0], results[2][0]), *zip(results[1], results[2], strict=True)):
        for x, y in zip(one, other, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


def test_gradients_are_clipped(make):
    trainer = make(max_grad_norm=1e-5)
    train(trainer)
    assert all(p.grad.abs().max() <= 1.001e-5 for p in trainer.model.parameters())
    assert any(p.grad.abs().max() > 0 for p in trainer.model.parameters())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kl", [[0.1, -0.1, 0.1], [-0.1, 0.1, -0.2]]),
        ("abs", [[0.1, 0.1, 0.1], [0.1, 0.1, 0.2]]),
        ("mse", [[0.005, 0.005, 0.005], [0.005, 0.005, 0.02]]),
    ],
)
def test_the_penalty(make, kind, expected):
    logprobs, ref_logprobs = (
        torch.tensor([[0.5, 0.2, 0.1], [0.6, 0.2, 0.1]]),
        torch.tensor([[0.4, 0.3, 0.0], [0.7, 0.1, 0.3]]),
    )
    trainer = make()
    trainer.config.kl_penalty = kind
    torch.testing.assert_close(trainer._kl_penalty(logprobs, ref_logprobs), torch.tensor(expected))


def test_the_full_penalty(make):
    """Over a vocabulary of three: the same, hardly overlapping, and one of either kind."""
    trainer = make(kl_penalty="full")
    p, q = [[0.98, 0.01, 0.01], [0.49, 0.02, 0.49]], [[0.01, 0.01, 0.98], [0.49, 0.02, 0.49]]
    output = trainer._kl_penalty(torch.tensor([p]).log(), torch.tensor([q]).log())
    assert output.shape == (1, 2)
    assert output[0].tolist() == pytest.approx([0.97 * math.log(98), 0.0], abs=1e-5)
    check_step(trainer, train(trainer))


def test_adapters_and_head_alone_are_trained(make, folder, tokenizer):
    from peft import get_peft_model

    base = AutoModelForCausalLM.from_pretrained(folder)
    base.get_input_embeddings().register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    adapters = get_peft_model(base, lora_adapters(LoraConfig(r=4), base))
    model = AutoModelForCausalLMWithValueHead.from_pretrained(adapters)
    trainer = make(given=model)
    assert trainer.ref_model is None
    train(trainer)
    trainer.model.train()
    trainer.model.gradient_checkpointing_enable()
    check_step(trainer, train(trainer))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora" in name or "v_head" in name), name


@pytest.mark.filterwarnings("ignore:generate samples")
@pytest.mark.parametrize("with_reference", [False, True])
def test_generation_alone_and_together(make, model, tokenizer, with_reference):
    ref_model = copy.deepcopy(model)
    ref_model.pretrained_model.lm_head.weight.data.neg_()  # never says the same
    trainer = make(ref_model)
    queries = [torch.tensor(tokenizer.encode(text)) for text in ("this is a test", "this is another, longer test")]
    greedy = {"do_sample": False, "max_new_tokens": 4, "generate_ref_response": with_reference}
    together = trainer.generate(queries, batch_size=2, **greedy)
    alone = [trainer.generate(query, **greedy) for query in queries]
    if not with_reference:
        assert [r.tolist() for r in together] == [r[0].tolist() for r in alone]
        return
    ours, theirs = together
    assert [r.tolist() for r in ours] == [one[0].tolist() for one, _ in alone]
    assert [r.tolist() for r in theirs] == [reference[0].tolist() for _, reference in alone]
    assert all(a.tolist() != b.tolist() for a, b in zip(ours, theirs, strict=True))


def test_accumulated_gradients_make_the_same_step(make, model):
    clone = copy.deepcopy(model)
    config = {"ppo_epochs": 1, "batch_size": 2}
    trainer = make(mini_batch_size=2, **config)
    train(trainer, (1.0, 1.0))
    trainer.config.mini_batch_size, trainer.config.gradient_accumulation_steps = 1, 2
    other = make(given=clone, mini_batch_size=1, gradient_accumulation_steps=2, **config)
    train(other, (1.0, 1.0))
    torch.testing.assert_close(model.v_head.summary.weight, clone.v_head.summary.weight, rtol=0, atol=1e-6)


def test_batch_sizes_have_to_fit():
    with pytest.raises(ValueError, match="batch_size 2 is not divisible"):
        PPOConfig(batch_size=2, mini_batch_size=2, gradient_accumulation_steps=2)


# ---------------------------------------------------------------- best of n, references


@pytest.fixture
def best_of(model, tokenizer):
    settings = GenerationConfig(min_length=-1, top_k=0, top_p=1.0, do_sample=True, pad_token_id=tokenizer.eos_token_id)
    return partial(
        BestOfNSampler,
        model,
        tokenizer,
        lambda texts: [float(len(text)) for text in texts],
        length_sampler=LengthSampler(4, 9),
        generation_config=settings,
    )


def test_best_of_n_takes_queries_of_any_kind(best_of):
    a, b = [30, 31, 32], [33, 34]
    for given, n in ((a, 1), (torch.tensor(b), 1), ([a, b], 2), ([torch.tensor(a), torch.tensor(b)], 2)):
        assert len(best_of().generate(given)) == n


@pytest.mark.parametrize(("samples", "candidates"), [(4, 2), (10, 3), (6, 4), (3, 1)])
def test_best_of_n_returns_the_best(best_of, samples, candidates):
    scored = []

    def length(texts):
        scored.append([float(len(text)) for text in texts])
        return scored[-1]

    sampler = best_of(sample_size=samples, n_candidates=candidates, seed=1)
    sampler.queries_to_scores = length
    for best, scores in zip(sampler.generate([[30, 31], [33]]), scored, strict=False):
        assert len(scores) == samples
        assert [float(len(text)) for text in best] == sorted(scores, reverse=True)[:candidates]
    with pytest.raises(UserError, match="n_candidates is 5; it must be from 1 to sample_size 4"):
        best_of(n_candidates=5)
    with pytest.raises(ValueError, match="tokenizer is a str"):
        BestOfNSampler(sampler.model, "gpt2", length, LengthSampler(2, 3))


def trained_a_little(model):
    loss = model(torch.arange(5)[None])[0].logsumexp(-1).mean()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    loss.backward()
    optimizer.step()
    return model


def test_an_independent_reference_stays(model):
    reference = create_reference_model(model)
    before = copy.deepcopy(reference.state_dict())
    trained_a_little(model)
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(torch.equal(p, before[name]) for name, p in reference.state_dict().items())
    assert not torch.equal(
        model.pretrained_model.transformer.h[0].mlp.c_fc.weight,
        reference.pretrained_model.transformer.h[0].mlp.c_fc.weight,
    )


@pytest.mark.parametrize("pattern", [None, "transformer.h.{layer}"])
def test_shared_layers_are_the_same_tensors(model, pattern):
    reference = create_reference_model(model, num_shared_layers=1, pattern=pattern)
    trained_a_little(model)
    ours, theirs = model.pretrained_model.transformer, reference.pretrained_model.transformer
    assert ours.h[0].mlp.c_fc.weight is theirs.h[0].mlp.c_fc.weight
    assert ours.h[1].mlp.c_fc.weight is not theirs.h[1].mlp.c_fc.weight
    assert not torch.equal(ours.h[1].mlp.c_fc.weight, theirs.h[1].mlp.c_fc.weight)
    with pytest.raises(ValueError, match=r"by the pattern 'nothing.\{layer\}'"):
        create_reference_model(model, 1, "nothing.{layer}")
