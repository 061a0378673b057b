"""The dynamics toy: KL held at its target, the forces in balance, and a story that is true."""

from dataclasses import replace

import pytest
import torch

from rlhf.maths.kl import kl_from_logits, target_kl_penalty
from rlhf.toy import story
from rlhf.toy.config import DynamicsConfig
from rlhf.toy.dynamics import NO_CLIP, sweeps, swept_value
from rlhf.toy.forces import train

CONFIG = DynamicsConfig(seeds=3)


@pytest.fixture(scope="module")
def traces():
    """The default setting, too small a target, and far too large steps."""
    return train([CONFIG, replace(CONFIG, kl_target=0.03), replace(CONFIG, lr=1.0), replace(CONFIG, batch_size=4)])


def test_kl_is_held_near_its_target_and_the_reward_rises(traces) -> None:
    settled = traces.kl[100:, 0]
    assert ((settled > 0.05) & (settled < 0.15)).float().mean() > 0.95
    assert traces.expected_reward[-1, 0].mean() > traces.expected_reward[0, 0].mean() + 0.1


def test_in_balance_the_penalty_pulls_as_hard_as_the_reward_pushes(traces) -> None:
    push, pull = traces.push[100:, 0].mean(), traces.pull[100:, 0].mean()
    assert (push > 0.3) & (pull > 0.3)
    assert pull.item() == pytest.approx(push.item(), rel=0.15)
    assert (traces.pull[0, 0] < 0).all()  # below its target the penalty pushes outwards too


def test_a_penalty_against_the_policy_that_sampled_the_batch_does_nothing_at_its_first_step() -> None:
    logits = torch.randn(32, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    kl = kl_from_logits(logits, logits.detach()).mean()
    target_kl_penalty(kl, 0.1).backward()
    assert kl == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-8


def test_what_breaks_the_balance(traces) -> None:
    too_short, too_fast = traces.kl[100:, 1] / 0.03, traces.kl[100:, 2] / 0.1
    assert too_short.mean() > 2
    assert too_fast.mean() > 1.5
    assert traces.update_kl[:, 2].mean() > 10 * traces.update_kl[:, 0].mean()
    assert traces.reward[:, 3].std(0).mean() > 1.5 * traces.reward[:, 0].std(0).mean()  # small batches are noisy


def test_a_setting_runs_as_it_would_alone(traces) -> None:
    short = replace(CONFIG, updates=10)
    alone = train([replace(short, batch_size=4)])
    together = train([short, replace(short, batch_size=4)])
    # The larger neighbor only adds rows to the draws, so compare with the mask's own first rows: same statistics.
    assert alone.kl.shape == (10, 1, 3)
    assert together.kl.shape == (10, 2, 3)
    torch.testing.assert_close(together.kl[:, 0], train([short]).kl[:, 0])


def trace(kl: list[float], update_kl: float = 0.0, push: float = 0.5, pull: float = 0.5) -> story.RunTrace:
    n = len(kl)
    return story.RunTrace(kl=kl, update_kl=[update_kl] * n, push=[push] * n, pull=[pull] * n)


def test_the_story_of_a_quiet_run() -> None:
    told = story.tell(CONFIG, trace([0.01, 0.06, 0.1, 0.1, 0.1]))
    assert told == [
        "KL reached its band [0.05, 0.15] at step 1.",
        "Held: 100% of the second half in the band, KL 0.100 on average.",
    ]


def test_the_story_names_the_cause() -> None:
    leaves_above = [0.1, 0.1, 0.2, 0.1]
    sentence = "KL left its band at step 2, above at 0.200, because "
    blamed = {
        "the steps are too large (lr 0.01)": trace(leaves_above, update_kl=0.08),
        "the reward pushed with 0.90 against the KL penalty's pull of 0.50 (kl_coef 2)": trace(leaves_above, push=0.9),
        "batches of 32 are noisy: the push was 0.50 ± 0.00 lately, the KL penalty's pull 0.50": trace(leaves_above),
    }
    for cause, run in blamed.items():
        told = story.tell(CONFIG, run)
        assert told[1].startswith(sentence)
        assert told[1].endswith(cause + ".")
        assert told[2] == "KL returned to its band [0.05, 0.15] at step 3."


def test_jumping_over_the_band_is_told() -> None:
    told = story.tell(CONFIG, trace([0.4, 0.4], update_kl=0.4))
    assert told[0].startswith(
        "KL jumped over its band at step 0, to 0.400, because this one update moved the policy by"
    )
    assert told[0].count("4.0 times the target") == 1
    assert told[1].startswith("Broke loose: KL 0.400")


def test_the_other_verdicts() -> None:
    assert story.verdict(CONFIG, trace([0.01, 0.02], update_kl=0.001)) == (
        "Never arrived: KL 0.020 at the end, 0.001 nats per update (lr 0.01)."
    )
    assert story.verdict(CONFIG, trace([0.1, 0.1, 0.1, 0.2])).startswith("Not held: 50% of the second half")
    assert story.share_in_band(CONFIG, trace([9.0, 9.0, 0.1, 0.2])) == 0.5


def test_the_sweeps_vary_one_thing_at_a_time() -> None:
    for name, group in sweeps(CONFIG).items():
        values = [swept_value(name, setting) for setting in group]
        assert len(set(values)) == len(values) == 3
    clip_ranges = next(group for name, group in sweeps(CONFIG).items() if name.startswith("clip"))
    assert [s.lr for s in clip_ranges] == [0.1] * 3
    assert clip_ranges[-1].clip_range == NO_CLIP
