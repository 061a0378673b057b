"""Faults that were found by trying: what had no effect, or the wrong one, without a word."""

import asyncio
import json
import math

import pytest
import torch
from tiny_data import TEXTS, write_jsonl
from tiny_runs import Crash, make_config

from rlhf.config import (
    CheckpointConfig,
    DataConfig,
    EnvironmentSpec,
    ModelConfig,
    RewardModelConfig,
    SFTConfig,
    ValueWarmup,
)
from rlhf.data.examples import load_training
from rlhf.environments.contract import Step
from rlhf.environments.stepping import Environments
from rlhf.errors import EpisodeError, RewardError, UserError
from rlhf.models.load import load_causal_lm
from rlhf.report.tables import markdown_table
from rlhf.report.write import build_report
from rlhf.rewards import RewardSpec, RewardSum, WeightedReward
from rlhf.rewards.code_text import code_of
from rlhf.rewards.logged import Logged
from rlhf.rewards.remote.judge import Judge
from rlhf.stages.ppo import run_ppo
from rlhf.stages.sft import run_sft

CODE = "export default () => <p>Hi</p>\n"


def sum_of(*functions, **options):
    return RewardSum([WeightedReward(f.__name__, f, **options) for f in functions])


# --- rewards


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_reward_that_ends_the_program_is_an_error(timeout, is_async):
    def plain(prompts, completions, **columns):
        exec("import sys; sys.exit(0)")  # of code that a model wrote

    async def awaited(prompts, completions, **columns):
        await asyncio.sleep(0)
        raise SystemExit(0)

    with pytest.raises(RewardError, match=r"raised RuntimeError: exit\(0\)"):
        sum_of(awaited if is_async else plain, timeout=timeout)(["p"], ["c"], {})


def test_a_reward_sees_nothing_of_what_another_did_to_its_inputs():
    prompt, answers, seen = [{"role": "user", "content": "Hi"}], ["x"], []

    def careless(prompts, completions, answers, **columns):
        prompts[0][-1]["content"] = "CHANGED"
        prompts[0].append(answers[0].pop())
        return [0.0]

    def careful(prompts, completions, answers, **columns):
        seen.append((prompts, answers))
        return [1.0]

    sum_of(careless, careful)([prompt], ["c"], {"answers": [answers]})
    assert seen == [([[{"role": "user", "content": "Hi"}]], [["x"]])]
    assert (prompt, answers) == ([{"role": "user", "content": "Hi"}], ["x"])


@pytest.mark.parametrize("reference", [5, ["a", "b"], {"answer": "x"}, 0.5, [], None])
def test_a_reference_of_any_kind_leaves_rewards_alone_that_do_not_compare(reference):
    rewards = RewardSum.from_specs([RewardSpec(path="length", args={"maximum": 10}), RewardSpec(path="repetition")])
    assert len(rewards(["p"], ["some text"], {"reference": [reference]}).total) == 1
    if reference is not None:
        comparing = RewardSum.from_specs([RewardSpec(path="react_heuristic")])
        with pytest.raises(RewardError, match=r"reference is .*; it must be text"):
            comparing(["p"], ["some text"], {"reference": [reference]})


@pytest.mark.parametrize("score", [1e39, -1e300, math.inf])
def test_a_score_beyond_float32_is_an_error(score):
    def huge(prompts, completions, **columns):
        return [score]

    def large(prompts, completions, **columns):
        return [3e38]

    with pytest.raises(RewardError, match="returned the score"):
        sum_of(huge)(["p"], ["c"], {})
    with pytest.raises(RewardError, match=r"the sum up to reward 'large' is 6e\+38"):
        sum_of(large, weight=2.0)(["p"], ["c"], {})


@pytest.mark.parametrize("given", [{"words": "json"}, {"words": ["a"], "forbidden": "sorry"}, {"words": [404]}])
def test_keywords_are_a_list_of_texts(given):
    with pytest.raises(RewardError, match="it must be a list of texts"):
        RewardSum.from_specs([RewardSpec(path="keywords", args=given)])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Score (1-10): 8", 7 / 9),
        ("Score [1-10]: 9", 8 / 9),
        ("Score 1-10: 8", 7 / 9),
        ("Score (out of 10): 8", 7 / 9),
        ("**Score:** **8/10**", 7 / 9),
        ("Score: 8", 7 / 9),
        ("Score: 1e1", None),
        ("Score: 11", None),
    ],
)
def test_a_judge_is_not_read_by_the_range_it_names(answer, expected):
    judge = Judge("http://localhost:1/v1", "m", "Is it good?", cache=None)
    found = judge.score(answer)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_a_judge_is_not_asked_about_a_reference_that_is_not_there():
    judge = Judge("http://localhost:1/v1", "m", "Is it like {reference}?", cache=None)
    assert judge(["p"], ["c"], reference=[None]) == [None]


@pytest.mark.parametrize(
    "text",
    [
        f"~~~tsx\n{CODE}~~~",
        f"````tsx\n{CODE}````",
        f"1. So:\n\n    ```tsx\n{CODE}    ```",
        f"```bash\nnpm i\n```\n```javascriptreact\n{CODE}```",
        f"```bash\nnpm i\n```\n```\n{CODE}```",
        f"````tsx\n{CODE}````\nthen\n```css\np {{}}\n```",
    ],
)
def test_code_in_any_fence_of_markdown(text):
    assert code_of(text) == CODE


def test_a_longer_fence_holds_a_shorter_one():
    assert code_of("````tsx\nconst a = `\n```\n`\n````\n") == "const a = `\n```\n`\n"


# --- data


def test_text_is_a_prompt_where_the_settings_name_the_completion(tmp_path):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"text": "ARTICLE", "summary": "SUM"}])
    [row] = load_training(DataConfig(train=file, columns={"completion": "summary"}), text_is_answer=True)
    assert (row.given, row.completion) == ("ARTICLE", "SUM")


@pytest.mark.parametrize("style", [("from", "value", "human", "gpt"), ("role", "content", "user", "assistant")])
def test_a_conversation_keeps_its_system_column(tmp_path, style):
    role, said, user, assistant = style
    turns = [{role: user, said: "Hi"}, {role: assistant, said: "Yes"}]
    rows = [{"system": "Be terse.", "conversations": turns},
            {"system": "Be terse.", "conversations": [{role: "system", said: "Be kind."}, *turns]}]  # fmt: skip
    first, second = load_training(DataConfig(train=write_jsonl(tmp_path / "rows.jsonl", rows)))
    assert [turn["content"] for turn in first.turns] == ["Be terse.", "Hi"]
    assert [turn["content"] for turn in second.turns] == ["Be kind.", "Hi"]


def test_an_empty_cell_is_no_reference(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,reference\na,\nb,c\n")
    assert [r.columns["reference"] for r in load_training(DataConfig(train=str(tmp_path / "rows.csv")))] == [None, "c"]


def test_a_folder_without_its_hidden_copies_and_files_in_any_case(tmp_path):
    write_jsonl(tmp_path / "train-1.JSONL", [{"prompt": "a"}])
    (tmp_path / ".ipynb_checkpoints").mkdir()
    write_jsonl(tmp_path / ".ipynb_checkpoints" / "train-checkpoint.jsonl", [{"prompt": "old"}])
    assert [row.given for row in load_training(DataConfig(train=str(tmp_path)))] == ["a"]
    write_jsonl(tmp_path / "rows.ndjson", [{"prompt": "a"}])
    with pytest.raises(UserError, match=r"rows.ndjson' ends in .ndjson; data files end in .jsonl"):
        load_training(DataConfig(train=str(tmp_path / "rows.ndjson")))


def test_a_parquet_column_that_is_there_twice(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="the column 'prompt' is there twice"):
        load_training(DataConfig(train=str(tmp_path / "rows.parquet")))


# --- fine-tuning


def sft_config(tiny_models, tmp_path, **options):
    rows = [{"prompt": text, "completion": " yes"} for text in TEXTS[:4]]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    options = {"num_train_epochs": 1.0, "batch_size": 4, "learning_rate": 1e-2} | options
    return SFTConfig(output_dir=str(tmp_path / "run"), model=ModelConfig(name_or_path=str(tiny_models["gpt2"])),
                     data=DataConfig(train=file), lora=None, **options)  # fmt: skip


def test_a_run_of_one_step_trains(tiny_models, tmp_path):
    """A warm-up begins at a learning rate of 0: of one step nothing would be left."""
    model = load_causal_lm(ModelConfig(name_or_path=str(run_sft(sft_config(tiny_models, tmp_path)))))
    before = load_causal_lm(ModelConfig(name_or_path=str(tiny_models["gpt2"])))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_other_data_than_the_checkpoint_s_are_refused(tiny_models, tmp_path, monkeypatch):
    from rlhf.stages.resumable import Resumable

    config = sft_config(tiny_models, tmp_path, batch_size=1, checkpoint=CheckpointConfig(save_steps=1))
    monkeypatch.setattr(Resumable, "_get_grad_norm", crash_in_the_third(Resumable._get_grad_norm))
    with pytest.raises(RuntimeError, match="power failure"):
        run_sft(config)
    monkeypatch.undo()
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "x", "completion": " no"}] * 4)
    with pytest.raises(UserError, match="was made with other training data"):
        run_sft(config)
    sft_config(tiny_models, tmp_path)
    run_sft(config)


def crash_in_the_third(method):
    steps = []

    def crashing(self, *arguments, **named):
        steps.append(1)
        if len(steps) == 3:
            raise RuntimeError("power failure")
        return method(self, *arguments, **named)

    return crashing


# --- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": [RewardSpec(path="length", weight=0.0)]}, "all rewards have weight 0"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty is -1.0; it must"),
        ({"advantage": "rloo", "gamma": 0.9}, "gamma is set, but advantage is rloo, which asks no critic; leave it"),
        (
            {"advantage": "group_relative", "vf_coef": 0.1, "critic": "shared"},
            "critic and vf_coef are set, but advantage is group_relative",
        ),
        ({"advantage": "rloo", "whiten_rewards": True}, "whiten_rewards is true, but advantage rloo sums the rewards"),
    ],
)
def test_settings_that_would_do_nothing_or_harm(tiny_models, options, message):
    with pytest.raises(UserError, match=message):
        make_config(tiny_models["gpt2"], "x.jsonl", **options)


def test_an_empty_system_prompt_is_refused():
    with pytest.raises(UserError, match=r"data\.system_prompt is empty"):
        DataConfig(train="x", system_prompt="")


def test_mismatched_pairs_of_one_prompt_are_refused(tiny_models, tmp_path):
    from rlhf.stages.reward_model import run_reward

    rows = [{"prompt": "p", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(3)]
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    config = RewardModelConfig(output_dir=str(tmp_path / "run"), data=DataConfig(train=file, eval=file), mismatched=0.1,
                               model=ModelConfig(name_or_path=str(tiny_models["gpt2"])))  # fmt: skip
    with pytest.raises(UserError, match=r"mismatched is 0.1, but all rows have one prompt"):
        run_reward(config)


# --- runs


def test_a_config_that_was_edited_costs_no_checkpoint(tiny_models, pairs, tmp_path):
    options = {"output_dir": str(tmp_path / "run"), "checkpoint": CheckpointConfig(save_steps=1)}
    config = make_config(tiny_models["gpt2"], pairs, num_updates=4, **options)
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(config, callbacks=[Crash(3)])
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("num_updates: 4", "num_updates: 6"))
    with pytest.raises(UserError, match=r"num_updates was 4 and is 6 here.*put config.yaml back as it was"):
        run_ppo(make_config(tiny_models["gpt2"], pairs, num_updates=6, **options))
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-000002").is_dir()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_run_that_was_all_warm_up_says_so(tiny_models, pairs, tmp_path, capsys):
    warmup = ValueWarmup(explained_variance=9.0, max_updates=2)
    run_ppo(make_config(tiny_models["gpt2"], pairs, num_updates=2, value_warmup=warmup, output_dir=str(tmp_path / "a")))
    assert "the policy was not trained" in capsys.readouterr().err
    run_ppo(make_config(tiny_models["gpt2"], pairs, num_updates=3, value_warmup=warmup, output_dir=str(tmp_path / "b")))
    assert "the policy was not trained" not in capsys.readouterr().err


def test_a_finished_run_without_its_policy_is_an_error(tiny_models, pairs, tmp_path):
    config = make_config(tiny_models["gpt2"], pairs, num_updates=1, output_dir=str(tmp_path / "run"))
    run_ppo(config).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is finished, but its policy is gone"):
        run_ppo(config)


def test_a_run_with_infinite_scores_has_a_report(tiny_models, pairs, tmp_path):
    run_ppo(make_config(tiny_models["gpt2"], pairs, num_updates=2, output_dir=str(tmp_path / "run")))
    file = tmp_path / "run" / "metrics.jsonl"
    first, last = map(json.loads, file.read_text().splitlines())
    file.write_text(json.dumps(first) + "\n" + json.dumps(last | {"objective/score": math.inf}) + "\n")
    assert (tmp_path / "report.html") in build_report([tmp_path / "run"], tmp_path / "report.html")


def test_cells_of_a_card_hold_no_marks_of_a_table():
    assert markdown_table(["a"], [["x|y<script>\nz"]]).splitlines()[-1] == "| x\\|y&lt;script> z |"


# --- environments


class Careless:
    """Changes what it is given, and says what should not be said."""

    shared: "Careless | None" = None

    def reset(self, prompt, todo=(), **columns):
        prompt[-1]["content"] += "!"
        todo.pop()
        return prompt

    def step(self, text):
        return Step("bad \ud800 char" if text == "bad" else "", 0.0, text != "bad", metrics={"turns": 1000.0})


def careless():
    return Careless()


def one_for_all():
    Careless.shared = Careless.shared or Careless()
    return Careless.shared


def opened(path, tmp_path, n=2):
    rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], "todo": ["a"]}]
    examples = load_training(DataConfig(train=write_jsonl(tmp_path / "rows.jsonl", rows))) * n
    environments = Environments(EnvironmentSpec(name=f"test_silent_faults.{path}"))
    return environments, environments.open(examples), examples


def test_an_environment_changes_no_data(tmp_path):
    _, episodes, examples = opened("careless", tmp_path)
    assert [messages[-1]["content"] for _, messages in episodes] == ["Hi!", "Hi!"]
    assert json.dumps(examples[0].columns["todo"]) == '["a"]'
    assert examples[0].turns[-1]["content"] == "Hi"


def test_a_metric_of_some_episodes_is_their_mean_however_they_are_batched():
    parts = []
    for values in ([100.0], [0.0, 0.0, 0.0, 0.0]):
        logged, batch = Logged(), Logged()
        batch.log_metric("found", sum(values) / len(values), samples=len(values))
        batch.log_metric("turns", 2.0)
        logged.add("environment", batch, 4)
        parts.append((logged, 4))
    assert Logged.concatenate(parts).metric_means() == {"reward_metric/found": 20.0, "reward_metric/turns": 2.0}


def test_one_object_for_two_episodes_is_an_error(tmp_path):
    with pytest.raises(EpisodeError, match="gave one object for two episodes"):
        opened("one_for_all", tmp_path)


@pytest.mark.parametrize(("said", "message"), [("bad", "half of a surrogate pair"), ("", "returned a metric 'turns'")])
def test_what_an_environment_must_not_say(tmp_path, said, message):
    environments, [(environment, _)], _ = opened("careless", tmp_path, n=1)
    if said == "bad":
        environment.step = lambda text: Step("bad \ud800 char", 0.0, False)
    with pytest.raises(EpisodeError, match=message):
        environments.step([(environment, said)], [0], 1)
