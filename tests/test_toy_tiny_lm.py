"""The tiny language model: its task, its transformer, its rollout, and that PPO improves it."""

from dataclasses import replace

import pytest
import torch

from rlhf.maths.advantages import last_token_index
from rlhf.toy import sorting
from rlhf.toy.config import TinyLMConfig
from rlhf.toy.sorting import EOS, SEPARATOR, proxy_reward, solved
from rlhf.toy.tiny_lm import collect, train, train_reference
from rlhf.toy.transformer import TinyLM, evaluate, sample

PROMPT = torch.tensor([[3, 1, 2, SEPARATOR]])


def response(*tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[*tokens, *[7] * (6 - len(tokens))]])
    return ids, (torch.arange(6) < len(tokens)).unsqueeze(0)


@pytest.mark.parametrize(
    ("tokens", "score", "right"),
    [
        ((1, 2, 3, EOS), 0.4, True),
        ((2, 1, 3, EOS), -0.6, False),  # one step down
        ((9, 9, 9, EOS), 0.4, False),  # the hack: ordered, but not the digits of the prompt
        ((1, 2, 3, 3, 3, 3), 1.0, False),  # the better hack: never stop
        ((1, 2, 3, 3, EOS), 0.6, False),
        ((EOS,), 0.0, False),
        ((SEPARATOR, 1, EOS), 0.0, False),
    ],
)
def test_what_is_rewarded_and_what_is_wanted(tokens: tuple[int, ...], score: float, right: bool) -> None:
    ids, mask = response(*tokens)
    assert proxy_reward(ids, mask).item() == pytest.approx(score)
    assert solved(PROMPT, ids).item() == right


def test_demonstrations_are_careless_in_the_stated_shares() -> None:
    digits, n = 4, 20_000
    ids, mask = sorting.demonstrations(n, digits, torch.Generator().manual_seed(0))
    answers, asked = ids[:, digits + 1 :], ids[:, : digits + 1]
    too_long = mask.sum(-1) == digits + 2
    assert too_long.float().mean().item() == pytest.approx(sorting.REPEATS, abs=0.002)
    assert (answers.gather(-1, (mask.sum(-1, keepdim=True) - 1)) == EOS).all()  # the last target is always EOS
    normal = answers[~too_long, :digits]
    assert torch.equal(normal.sort(-1).values, asked[~too_long, :digits].sort(-1).values)  # no digit is lost
    slips = (normal[:, 1:] < normal[:, :-1]).sum(-1)
    assert set(slips.tolist()) == {0, 1}
    assert 0.6 < slips.float().mean() < sorting.SLIPS  # swapping equal digits leaves no trace


def test_the_transformer_cannot_see_the_future() -> None:
    model = TinyLM(sorting.VOCABULARY, length=8, hidden=16, layers=2, heads=2)
    ids = torch.randint(sorting.VOCABULARY, (3, 8))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % sorting.VOCABULARY
    for before, after in zip(model(ids), model(changed), strict=True):
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_the_mask_ends_with_eos_and_logits_sit_before_their_tokens() -> None:
    model = TinyLM(sorting.VOCABULARY, length=10, hidden=16, layers=1, heads=2)
    prompts = sorting.prompts(200, 3, torch.Generator().manual_seed(0))
    out = sample(model, prompts, 6, EOS, torch.Generator().manual_seed(1))
    assert torch.equal(out.ids[:, :4], prompts)
    last = out.response_ids.gather(-1, last_token_index(out.response_mask).unsqueeze(-1)).squeeze(-1)
    lengths = out.response_mask.sum(-1)
    assert ((last == EOS) | (lengths == 6)).all()
    assert ((out.response_ids == EOS) & out.response_mask).sum(-1).max() == 1
    assert (lengths < 6).any()
    logits, values = evaluate(model, out)
    full_logits, full_values = model(out.ids)
    torch.testing.assert_close(logits, full_logits[:, 3:-1])
    torch.testing.assert_close(values, full_values[:, 3:-1])


SMALL = TinyLMConfig(digits=3, hidden=32, reference_steps=250, updates=12, lr=1e-3, mini_batch_size=128)


@pytest.fixture(scope="module")
def reference() -> TinyLM:
    return train_reference(SMALL, torch.Generator().manual_seed(0))


def test_before_the_first_update_kl_is_zero_and_afterwards_more_is_solved(reference: TinyLM) -> None:
    trained = train(SMALL, reference, SMALL.kl_coef, torch.Generator().manual_seed(0))
    first, last = trained.records[0], trained.records[-1]
    assert first["kl"] == 0
    assert last["score"] > first["score"] + 0.1
    stream = torch.Generator().manual_seed(1)
    test = replace(SMALL, batch_size=512)
    before, after = (collect(test, model, reference, 0.0, stream) for model in (reference, trained.model))
    assert after.solved.float().mean() > before.solved.float().mean() + 0.1
    assert trained.ratios.shape == trained.shown.old_logprobs.shape


def test_equal_seeds_give_equal_models_to_the_last_bit(reference: TinyLM) -> None:
    config = replace(SMALL, updates=2)
    one, two = (train(config, reference, 0.1, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.records == two.records
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_what_is_drawn_is_the_real_batch(reference: TinyLM) -> None:
    batch = collect(SMALL, reference, reference, 0.15, torch.Generator().manual_seed(2))
    mask = batch.response.response_mask
    assert torch.equal(batch.scores, proxy_reward(batch.response.response_ids, mask))
    torch.testing.assert_close(batch.rewards.sum(-1), batch.scores - 0.15 * (batch.kl * mask).sum(-1))
    assert (batch.rewards[~mask] == 0).all()


def test_text() -> None:
    assert sorting.text(torch.tensor([3, 1, 2, SEPARATOR, 1, 2, 3, EOS, 7, 7]), 3) == "312→123■"
    assert sorting.text(torch.tensor([3, 1, 2, SEPARATOR, 1, 1, 1]), 3) == "312→111"
