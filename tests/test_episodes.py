"""Episodes as tokens: what was sampled stays, gaps are where the environment spoke, limits hold, turns are paid."""

import dataclasses
import itertools

import pytest
import torch
from chat_templates import FAMILIES, tokenizer_of
from talkers import episodes_of, saying
from tiny_policy import make_policy
from tiny_runs import make_config

from rlhf.config import DataConfig, EnvironmentSpec
from rlhf.data.chat import prompt_ids
from rlhf.data.examples import TokenizedExample
from rlhf.data.parsing import Example
from rlhf.environments.episodes import on_its_own, respond, seeded
from rlhf.environments.returns import reward_fn
from rlhf.errors import EpisodeError, UserError
from rlhf.models.tokenizer import load_tokenizer
from rlhf.ppo.credit import assign_credit, early_rewards
from rlhf.ppo.rollout import Experience, policy_outputs
from rlhf.ppo.rollout_files import load_rollout, save_rollout
from rlhf.ppo.spans import span_rewards, start_of_last_turn
from rlhf.rewards import Span, reward_inputs
from rlhf.sampling.decode import sample
from rlhf.sampling.responses import continued

TURN = {"role": "user", "content": "Say something."}
PROMPT = TokenizedExample(Example((TURN,), None, {}, "test"), [], None)


@pytest.fixture(scope="module")
def chatml():
    """A token per byte, so that a test can say any text in any tokens."""
    made = tokenizer_of("chatml")
    made.chat_template = FAMILIES["chatml"]
    return made


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def joined(parts):
    return list(itertools.chain.from_iterable(parts))


def play(tokenizer, turns, n=1, **options):
    """What comes of `n` episodes of Echo in which the model says these texts; and what its sampler was given."""
    sampler = saying(*(ids_of(tokenizer, turn) for turn in turns))
    episodes = episodes_of(tokenizer, **{"context": 1000, "max_new_tokens": 100} | options)
    return respond(seeded([PROMPT] * n, "test"), sampler, tokenizer, episodes), sampler.heard


def test_the_conversation_is_what_was_sampled_and_what_the_template_adds(chatml):
    turns = ["a<|im_end|>", "bc<|im_end|>", "def<|im_end|>"]
    responses, heard = play(chatml, turns, n=2)
    gap = "\n<|im_start|>user\nYou said {} characters.<|im_end|>\n<|im_start|>assistant\n"
    expected = [turns[0], gap.format(1), turns[1], gap.format(2), turns[2]]
    ids = [ids_of(chatml, part) for part in expected]
    [first] = prompt_ids(chatml, [[TURN]])
    assert responses.response_ids(1) == joined(ids)
    assert responses.sequence_ids[0, : len(first)].tolist() == first
    own = joined([number % 2 == 0] * len(part) for number, part in enumerate(ids))
    assert responses.response_mask.tolist() == [own, own]
    assert responses.has_eos.tolist() == [True, True]
    assert heard[0] == ([first, first], [100, 100])
    assert heard[2][0][0] == first + joined(ids[:4])
    episode = responses.episodes[0]
    assert [message["role"] for message in episode.messages] == ["assistant", "user"] * 2 + ["assistant"]
    assert episode.messages[2]["content"] == "bc"
    assert (episode.rewards, episode.ending, episode.total) == ((1.0, 2.0, 3.0), "done", 6.0)
    paid = responses.turn_rewards[0].nonzero().flatten().tolist()
    ends = [len(joined(ids[: n + 1])) - 1 for n in (0, 2, 4)]
    assert paid == ends
    assert responses.turn_rewards[0, ends].tolist() == [1.0, 2.0, 3.0]


def test_tokens_that_no_tokenizer_would_choose_stay(tiny_models):
    """The text of the answer, tokenized again, is another list of tokens; what was sampled stays all the same."""
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    [merged] = [ids for ids in [ids_of(tokenizer, "return")] if len(ids) == 1]
    letters = [i for letter in "return" for i in ids_of(tokenizer, letter)]
    assert tokenizer.decode(letters) == tokenizer.decode(merged)
    sampler = saying([*letters, tokenizer.eos_token_id], [tokenizer.eos_token_id])
    responses = respond(
        seeded([PROMPT], ""), sampler, tokenizer, episodes_of(tokenizer, args={"turns": 2}, max_new_tokens=20)
    )
    assert responses.response_ids(0)[:7] == [*letters, tokenizer.eos_token_id]
    assert sampler.heard[1][0][0][len(sampler.heard[0][0][0]) :][:7] == [*letters, tokenizer.eos_token_id]


def test_a_turn_that_a_stop_string_ended_is_closed_by_a_token_that_the_model_did_not_choose(chatml):
    responses, _ = play(chatml, ["a.", "b."], args={"turns": 2})
    closing = chatml.convert_tokens_to_ids("<|im_end|>")
    assert responses.response_ids(0)[2] == closing
    assert responses.response_mask[0, :3].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("options", "turns", "ending", "n_own"),
    [
        ({"max_turns": 2}, 2, "max_turns", 4),
        ({"max_new_tokens": 1}, 1, "cut", 1),  # the turn is two tokens long
        ({"max_tokens": 77}, 1, "full", 2),  # the first messages have 33 tokens, the turn 2, the observation 42
        ({"max_tokens": 78}, 2, "cut", 3),
        ({"context": 78}, 2, "cut", 3),
        ({"context": 79, "max_turns": 2}, 2, "max_turns", 4),
    ],
)
def test_limits(chatml, options, turns, ending, n_own):
    """Of turn, conversation, context and number of turns; each is a truncation, and is marked."""
    responses, _ = play(chatml, ["a<|im_end|>"] * 3, **options)
    assert responses.episodes[0].ending == ending
    assert len(responses.episodes[0].rewards) == turns
    assert not responses.has_eos[0]
    assert int(responses.lengths[0]) == n_own
    assert responses.episodes[0].messages[-1]["role"] == "assistant"


def test_first_messages_that_leave_no_room_are_named(chatml):
    with pytest.raises(EpisodeError, match="begins with 33 tokens in episode 0; a conversation has at most 33"):
        play(chatml, ["a"], max_tokens=33)


def test_system_prompt_and_text_rows_are_put_as_everywhere(chatml):
    data = DataConfig(system_prompt="Be brief.")
    text = dataclasses.replace(PROMPT, example=dataclasses.replace(PROMPT.example, given="Say something."))
    sampler = saying(ids_of(chatml, "a<|im_end|>"))
    responses = respond(
        seeded([text], ""), sampler, chatml, episodes_of(chatml, context=1000, data=data, args={"turns": 1})
    )
    [expected] = prompt_ids(chatml, [[{"role": "system", "content": "Be brief."}, TURN]])
    assert sampler.heard[0][0] == [expected]
    assert responses.examples[0].turns == ({"role": "system", "content": "Be brief."}, TURN)


def test_seeds_follow_from_the_occasion_and_the_place_and_the_data_goes_first():
    rows = [
        PROMPT,
        PROMPT,
        dataclasses.replace(PROMPT, example=dataclasses.replace(PROMPT.example, columns={"seed": 5})),
    ]

    def seeds_of(occasion):
        return [prompt.example.columns["seed"] for prompt in seeded(rows, occasion)]

    assert seeds_of("update 1") == seeds_of("update 1")
    assert seeds_of("update 1")[2] == 5
    assert len({*seeds_of("update 1"), *seeds_of("update 2")}) == 5
    assert on_its_own(EnvironmentSpec(name="guess_number")).example.columns == {}
    taken = dataclasses.replace(PROMPT, example=dataclasses.replace(PROMPT.example, columns={"episode": 1}))
    with pytest.raises(UserError, match="test: a column is called episode"):
        seeded([taken], "")


@pytest.fixture(scope="module")
def played(tiny_models):
    """A policy, and four episodes that it sampled itself, of which some turns are cut off."""
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    policy = make_policy(tiny_models["gpt2"])
    config = make_config(tiny_models["gpt2"], "unused").sampling
    generator = torch.Generator().manual_seed(0)

    def sampler(rows, limits):
        sampled = continued(policy, tokenizer, config, generator, rows, limits)
        ended = torch.ones_like(sampled.ended)  # a random model hardly ends its turns
        return sampled._replace(ended=ended)

    episodes = episodes_of(tokenizer, max_new_tokens=6, args={"turns": 3})
    return policy, tokenizer, respond(seeded([PROMPT] * 4, ""), sampler, tokenizer, episodes)


def test_log_probabilities_are_the_samplers_and_those_of_the_whole_sequence(played):
    """Every turn continues the conversation that the update reads: the same numbers from both, 0 in the gaps."""
    policy, _, responses = played
    assert (~responses.response_mask[0, : responses.extents[0]]).any()
    now = policy_outputs(policy, responses, 1.0, 3, with_values=True, with_entropy=True)
    torch.testing.assert_close(now.logprobs, responses.sampler_logprobs, rtol=0, atol=2e-5)
    for row in range(4):
        n = int(responses.prompt_lengths[row] + responses.extents[row])
        ids = responses.sequence_ids[row, :n]
        with torch.no_grad():
            logprobs = policy.wrapper.pretrained_model(ids[None]).logits[0].double().log_softmax(-1)
        for t in range(int(responses.extents[row])):
            at = int(responses.prompt_lengths[row]) + t
            expected = float(logprobs[at - 1, ids[at]]) if responses.response_mask[row, t] else 0.0
            assert float(now.logprobs[row, t]) == pytest.approx(expected, abs=2e-5)


def experience_of(responses) -> Experience:
    torch.manual_seed(0)
    numbers = torch.randn(5, *responses.response_mask.shape)
    names = ("old_logprobs", "ref_logprobs", "entropy", "old_values", "kl")
    masked = {name: torch.where(responses.response_mask, x, torch.nan) for name, x in zip(names, numbers, strict=True)}
    return Experience(**vars(responses), **masked)


def scores_of(responses):
    sum_of = reward_fn([], EnvironmentSpec(name="talkers.Echo"))
    return sum_of(*reward_inputs(responses.examples, responses.texts, responses.episodes))


def test_advantages_against_a_slow_oracle(tiny_models, played):
    """Turn rewards at the ends of their turns, KL at every own token, GAE over the list of own tokens."""
    _, tokenizer, responses = played
    config = make_config(tiny_models["gpt2"], "unused", gamma=0.9, gae_lambda=0.8, whiten_advantages=False)
    experience = experience_of(responses)
    scored = scores_of(responses)
    assert scored.components["Echo"] == scored.total == [6.0] * 4
    rollout = assign_credit(config, experience, torch.tensor(scored.total) - 0.5, scored, 0.3, tokenizer)
    for row in range(4):
        own = responses.response_mask[row].nonzero().flatten().tolist()
        ends = [t for t in own if t + 1 not in own]
        paid = dict(zip(ends, [1.0, 2.0, 2.5], strict=True))  # the score is .5 less, which is the last turn's
        after = value_after = 0.0
        for t in reversed(own):
            reward = paid.get(t, 0.0) - 0.3 * float(experience.kl[row, t])
            value = float(experience.old_values[row, t])
            after = reward + 0.9 * value_after - value + 0.9 * 0.8 * after
            value_after = value
            assert float(rollout.rewards[row, t]) == pytest.approx(reward, abs=1e-5)
            assert float(rollout.advantages[row, t]) == pytest.approx(after, abs=1e-5)
            assert float(rollout.returns[row, t]) == pytest.approx(after + value, abs=1e-5)
        gaps = (~responses.response_mask[row]).nonzero().flatten()
        for x in (rollout.rewards, rollout.advantages, rollout.returns):
            assert x[row, gaps].abs().sum() == 0


def test_whitening_is_over_own_tokens_alone(tiny_models, played):
    _, tokenizer, responses = played
    config = make_config(tiny_models["gpt2"], "unused")
    rollout = assign_credit(
        config, experience_of(responses), torch.full((4,), 6.0), scores_of(responses), 0.3, tokenizer
    )
    own = rollout.advantages[responses.response_mask]
    assert float(own.mean()) == pytest.approx(0, abs=1e-6)
    assert float(own.std(unbiased=False)) == pytest.approx(1, abs=1e-4)


def test_without_an_environment_nothing_is_paid_early(played):
    experience = experience_of(dataclasses.replace(played[2], turn_rewards=None))
    assert early_rewards(experience).abs().sum() == 0


def test_spans_are_of_the_last_turn(played):
    _, tokenizer, responses = played
    first = start_of_last_turn(responses, 0)
    assert responses.response_mask[0, first : responses.extents[0]].all()
    assert not responses.response_mask[0, first - 1]
    said = responses.episodes[0].messages[-1]["content"]
    rewards = span_rewards([[Span(0, len(said), 3.0)], [], [], []], responses, tokenizer)
    assert rewards[0].nonzero().min() >= first
    assert float(rewards.sum()) == pytest.approx(3.0)


def test_rewards_see_the_turns_and_the_episode(played):
    _, _, responses = played
    prompts, completions, columns = reward_inputs(responses.examples, responses.texts, responses.episodes)
    assert prompts[0] == [TURN]
    assert [turn["role"] for turn in completions[0]] == ["assistant", "user"] * 2 + ["assistant"]
    assert columns["episode"] == responses.episodes
    scored = scores_of(responses)
    assert scored.logged.metric_means() == {
        "reward_metric/turns": 3.0, "reward_metric/done": 1.0, "reward_metric/heard": 3.0,
    }  # fmt: skip
    assert scored.logged.extra == {"turns": [3] * 4, "ending": ["done"] * 4}


def test_rollouts_on_disk_hold_the_episodes(tiny_models, played, tmp_path):
    _, tokenizer, responses = played
    config = make_config(tiny_models["gpt2"], "unused")
    rollout = assign_credit(
        config, experience_of(responses), torch.full((4,), 6.0), scores_of(responses), 0.3, tokenizer
    )
    save_rollout(tmp_path / "rollout", rollout, tokenizer)
    again = load_rollout(tmp_path / "rollout")
    assert again.episodes == rollout.episodes
    assert torch.equal(again.turn_rewards, rollout.turn_rewards)
    assert torch.equal(again.response_mask, rollout.response_mask)


def test_each_row_has_a_limit_of_its_own(tiny_models):
    policy = make_policy(tiny_models["gpt2"])
    sampling = make_config(tiny_models["gpt2"], "unused").sampling
    model, rows = policy.language_model.eval(), [[5, 6, 7], [8, 9], [10]]
    with torch.no_grad():
        sampled = sample(model, rows, sampling, 319, torch.Generator().manual_seed(0), limits=[2, 7, 4])
    assert sampled.response_mask.sum(-1).tolist() == [2, 7, 4]
    assert not sampled.ended.any()
