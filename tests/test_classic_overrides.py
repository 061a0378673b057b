"""The classic trainer's methods: what a subclass overrides or a script assigns acts, or is refused."""

import types

import pytest
import torch
from tiny_classic import RESPONSES, SMALL, TOKEN_REWARDS, make_trainer, parameters, prompt_ids
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from rlhf import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer
from rlhf.errors import UserError

METHODS = [
    "prepare_model_inputs", "batched_forward_pass", "compute_rewards", "_kl_penalty", "compute_advantages", "loss",
    "train_minibatch", "_early_stop", "record_step_stats", "_step_safety_checker",
]  # fmt: skip
SCORES = [1.0, 0.0, 2.0, -1.0]


@pytest.fixture
def folder(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture
def queries(folder):
    return prompt_ids(folder)


@pytest.fixture
def make(folder, monkeypatch):
    """A trainer of a subclass with these methods."""

    def build(methods, **settings):
        monkeypatch.setattr("tiny_classic.PPOTrainer", type("Custom", (PPOTrainer,), methods))
        return make_trainer(folder, **{"learning_rate": 5e-5, "ppo_epochs": 2, "mini_batch_size": 2} | settings)

    return build


def counting(name, calls):
    """The method as it is, and a note that it was called."""

    def method(self, *args, **kwargs):
        calls.append(name)
        return getattr(super(type(self), self), name)(*args, **kwargs)

    return {name: method}


def assert_close(a: PPOTrainer, b: PPOTrainer, atol=2e-5) -> None:
    for name, parameter in parameters(a).items():
        if not name.endswith("c_attn.bias"):  # of the keys' bias the gradient is rounding alone
            torch.testing.assert_close(parameter, parameters(b)[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_changes_nothing_is_called_and_changes_nothing(make, queries, name, peft):
    """Two steps by way of the method, padding, logits and all, end where the update ends that needs none of them."""
    calls: list[str] = []
    settings = {"temperature": 0.7, "lam": 0.9}
    settings |= {"whiten_rewards": True} if name == "compute_advantages" else {}
    settings |= {"early_stopping": True, "target_kl": 100.0} if name == "_early_stop" else {}
    plain, custom = make({}, peft=peft, **settings), make(counting(name, calls), peft=peft, **settings)
    for _ in range(2):
        expected, stats = (trainer.step(queries, RESPONSES, SCORES) for trainer in (plain, custom))
        same = ["objective/kl", "objective/entropy", "ppo/returns/mean", "ppo/loss/value", "ppo/mean_non_score_reward"]
        for key in same:
            assert stats[key] == pytest.approx(expected[key], abs=1e-4), key
    assert set(calls) == {name}
    assert len(calls) >= 2
    assert_close(plain, custom)


@pytest.mark.parametrize("name", ["batched_forward_pass", "compute_rewards", "loss", "train_minibatch"])
def test_a_method_may_be_assigned_to_the_object(make, queries, name):
    calls: list[str] = []
    plain, custom = make({}), make({})

    def method(self, *args, **kwargs):
        calls.append(name)
        return getattr(PPOTrainer, name)(self, *args, **kwargs)

    setattr(custom, name, types.MethodType(method, custom))
    for trainer in (plain, custom):
        trainer.step(queries, RESPONSES, SCORES)
    assert calls
    assert_close(plain, custom)


def test_rewards_of_ones_own(make, queries):
    """The last token's score twice: the returns are those of scores twice as large."""

    def compute_rewards(self, scores, logprobs, ref_logprobs, masks):
        assert logprobs.shape == ref_logprobs.shape == masks.shape
        assert masks.sum(-1).tolist() == [len(r) for r in RESPONSES]
        return PPOTrainer.compute_rewards(self, 2 * scores, logprobs, ref_logprobs, masks)

    plain, custom = make({}), make({"compute_rewards": compute_rewards})
    plain.step(queries, RESPONSES, [2 * score for score in SCORES])
    stats = custom.step(queries, RESPONSES, SCORES)
    assert stats["ppo/mean_scores"] == pytest.approx(sum(SCORES) / 4)
    assert_close(plain, custom)


def test_a_penalty_of_ones_own(make, queries):
    """No penalty: as with a coefficient of 0."""
    no_penalty = {"_kl_penalty": lambda self, logprob, ref_logprob: torch.zeros_like(logprob)}
    plain, custom = make({}, init_kl_coef=0.0), make(no_penalty)
    for trainer in (plain, custom):
        trainer.step(queries, RESPONSES, SCORES)
        trainer.step(queries, RESPONSES, SCORES)
    assert_close(plain, custom)


def test_rewards_per_token_go_through_the_methods(make, queries):
    calls: list[str] = []
    plain, custom = make({}), make(counting("compute_advantages", calls))
    for trainer in (plain, custom):
        trainer.step(queries, RESPONSES, TOKEN_REWARDS)
    assert calls
    assert_close(plain, custom)


def test_advantages_of_ones_own(make, queries):
    """Advantages of 0 and a critic that is right: the step has no gradient."""

    def compute_advantages(self, values, rewards, mask):
        return values, torch.zeros_like(values), values

    custom = make({"compute_advantages": compute_advantages}, ppo_epochs=1, mini_batch_size=4)
    before = parameters(custom)
    custom.step(queries, RESPONSES, SCORES)
    assert custom.model.v_head.summary.weight.grad.abs().max() < 1e-6
    assert all((p - before[name]).abs().max() <= 6e-5 for name, p in parameters(custom).items())


def test_a_loss_of_ones_own(make, queries):
    """With an entropy bonus, which also gives a statistic of its own."""

    def loss(self, old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns):
        assert logits.shape[:2] == logprobs.shape == mask.shape
        policy, value, stats = PPOTrainer.loss(
            self, old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns
        )
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        bonus = 50.0 * (entropy * mask).sum() / mask.sum()
        return policy - bonus, value, stats | {"policy/bonus": bonus}

    plain, custom = make({}), make({"loss": loss})
    for trainer in (plain, custom):
        trainer.step(queries, RESPONSES, SCORES)
        stats = trainer.step(queries, RESPONSES, [0.0] * 4)
        trainer.entropy = stats["ppo/policy/entropy"]
    assert custom.entropy > plain.entropy + 1e-4
    assert stats["ppo/policy/bonus"] == pytest.approx(50 * custom.entropy, rel=0.05)


def test_minibatches_are_accumulated(make, queries):
    """Four minibatches of one row make one step of Adam: the mean of their means."""
    calls: list[str] = []
    one_row = {"mini_batch_size": 1, "gradient_accumulation_steps": 4, "ppo_epochs": 1}
    custom = make(counting("train_minibatch", calls), **one_row)
    before = parameters(custom)
    custom.step(queries, RESPONSES, SCORES)
    assert len(calls) == 4
    steps = {int(state["step"]) for state in custom.optimizer.state.values()}
    assert steps == {1}
    assert any(not torch.equal(before[name], p) for name, p in parameters(custom).items())


def test_statistics_of_ones_own(make, queries):
    def record_step_stats(self, kl_coef, **data):
        stats = super(type(self), self).record_step_stats(kl_coef, **data)
        per_token = data["kls"] * data["masks"]
        return stats | {"mine/longest": max(map(len, data["responses"])), "mine/kl": per_token.sum(-1).mean()}

    custom = make({"record_step_stats": record_step_stats})
    custom.step(queries, RESPONSES, SCORES)
    stats = custom.step(queries, RESPONSES, SCORES)
    assert stats["mine/longest"] == 5
    assert stats["mine/kl"] == pytest.approx(stats["objective/kl"], abs=1e-5)
    assert stats["ppo/mean_scores"] == 0.5


def test_a_collator_for_training_pads_the_update(make, folder, queries):
    """On the left, with position ids: the same update."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    seen = []

    class Collator(DataCollatorForLanguageModeling):
        def __call__(self, rows, **options):
            batch = super().__call__(rows, **options)
            seen.append(bool((batch["attention_mask"][:, 0] == 0).any()))
            return batch

    plain = make({})
    torch.manual_seed(0)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    config = PPOConfig(**SMALL | {"learning_rate": 5e-5, "ppo_epochs": 2, "mini_batch_size": 2})
    custom = PPOTrainer(config, model, tokenizer=tokenizer, training_data_collator=Collator(tokenizer, mlm=False))
    for trainer in (plain, custom):
        trainer.step(queries, RESPONSES, SCORES)
    assert any(seen)
    assert_close(plain, custom)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gather_stats", "Custom overrides gather_stats, which is not called here: statistics are over all processes"),
        ("_generate_batched", "override generate"),
        ("_prepare_deepspeed", "does not run on DeepSpeed"),
        ("_remove_unused_columns", "override prepare_dataloader"),
    ],
)
def test_a_method_that_nothing_calls_is_refused(make, name, line):
    with pytest.raises(UserError, match=line):
        make({name: lambda self, *args: None})
    trainer = make({})
    with pytest.raises(UserError, match=f"this assigns to {name}, which is not called here"):
        setattr(trainer, name, print)


def test_the_dataloader_and_saving_are_ones_own(make, folder, tmp_path):
    calls = []
    methods = {
        "prepare_dataloader": lambda self, dataset, collator=None: [dataset, collator],
        "_save_pretrained": lambda self, where: calls.append(where),
    }
    trainer = make(methods, dataset="rows")
    assert trainer.dataloader == ["rows", None]
    trainer.save_pretrained(tmp_path)
    assert calls == [tmp_path]


def test_full_kl_needs_more_than_the_methods_get(make, queries):
    trainer = make(counting("compute_rewards", []), kl_penalty="full")
    with pytest.raises(UserError, match="kl_penalty 'full' does not go with an overridden compute_rewards"):
        trainer.step(queries, RESPONSES, SCORES)
