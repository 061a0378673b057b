"""Episodes in the report: turn by turn, with rewards and advantages; text of others stays text."""

import shutil

import pytest
import torch
from report_runs import HOSTILE, rows_of
from safetensors.torch import load_file, save_file
from tiny_data import write_jsonl
from tiny_runs import make_config

from rlhf.config import EnvironmentSpec, InspectConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.report.compare import group_runs
from rlhf.report.conversations import conversations, episodes_of, longest
from rlhf.report.inspector import responses_of
from rlhf.report.load import read_run
from rlhf.report.write import write_report
from rlhf.stages.ppo import run_ppo


@pytest.fixture(scope="module")
def run(tiny_models, tmp_path_factory):
    """Two updates with an environment, whose turns end at a frequent letter; two episodes are watched."""
    folder = tmp_path_factory.mktemp("conversations")
    data = write_jsonl(folder / "rows.jsonl", [{"prompt": "Say <b>it</b>."}, {"prompt": "Again."}])
    config = make_config(
        tiny_models["gpt2"], data, output_dir=str(folder / "run"), rewards=None, num_updates=2, num_ppo_epochs=1,
        environment=EnvironmentSpec(name="talkers.Echo", args={"turns": 2}), inspect=InspectConfig(prompts=2, every=1),
        sampling=SamplingConfig(max_new_tokens=12, stop=[*"etaoinsr <>();"]),
    )  # fmt: skip
    run_ppo(config)
    return folder / "run"


def test_turns_are_the_stretches_of_the_mask(run):
    folder = run / "rollouts" / "000001"
    tensors, rows = load_file(folder / "rollout.safetensors"), rows_of(folder / "rows.jsonl")
    shown = list(episodes_of(folder))
    assert [len(spoken) for _, spoken, _ in shown] == [2, 2, 2]
    for row, spoken, largest in shown:
        number = rows.index(row)
        assert [turn.reward for turn in spoken] == row["episode"]["rewards"]
        own = tensors["response_mask"][number]
        flat = [x for turn in spoken for x in turn.advantages]
        assert flat == pytest.approx(tensors["advantages"][number][own].tolist())
        tokens = [token for token, is_own in zip(row["tokens"], own.tolist(), strict=False) if is_own]
        assert [token for turn in spoken for token in turn.tokens] == tokens
        assert spoken[0].value == pytest.approx(float(tensors["old_values"][number, 0]))
        assert largest == pytest.approx(float(tensors["advantages"].abs().max()))


def test_the_longest_episodes_are_shown():
    rows = [{"episode": {"rewards": [0.0] * turns}} for turns in (1, 2, 1, 3, 2, 2)]
    assert longest(rows) == [1, 3, 4]


def test_a_run_without_a_critic_expects_nothing(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for file in (tmp_path / "run").glob("rollouts/*/rollout.safetensors"):
        tensors = load_file(file)
        save_file(tensors | {"old_values": torch.zeros_like(tensors["old_values"])}, file)
    cards = "".join(map(str, conversations(group_runs([read_run(tmp_path / "run")]))))
    assert "model, turn 2: reward +2 · advantage " in cards
    assert "value before" not in cards


def test_the_page_shows_who_said_what(run, tmp_path):
    page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="conversations"' in page
    assert "Say &lt;b&gt;it&lt;/b&gt;." in page
    assert "model, turn 1: reward +1 · value before " in page
    assert "You said " in page
    assert '<p class="picked">user</p>' in page


def test_the_inspector_marks_what_the_model_did_not_choose(run):
    folder = run / "rollouts" / "000001"
    mask = load_file(folder / "rollout.safetensors")["response_mask"]
    for number, response in enumerate(responses_of(folder)):
        gaps = response.get("gaps", [])
        assert all(not mask[number, t] for t in gaps)
        assert len(gaps) + int(mask[number].sum()) == len(response["tokens"])


def test_hostile_words_stay_words(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "rollouts" / "000001" / "rows.jsonl"
    rows = rows_of(file)
    for row in rows:
        for message in row["episode"]["messages"]:
            message["content"] = "\n".join(HOSTILE)
        row["tokens"] = [HOSTILE[0]] * len(row["tokens"])
    write_jsonl(file, rows)
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE[0] not in page
    assert HOSTILE[1] not in page


@pytest.mark.parametrize(
    "damage",
    [
        lambda episode: episode.update(messages=[3]),
        lambda episode: episode.update(rewards=["much"]),
        lambda episode: episode.update(rewards=[]),
        lambda episode: episode["messages"].append({"role": "assistant"}),
    ],
)
def test_an_episode_that_no_run_has_written_is_named(run, tmp_path, damage):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "rollouts" / "000001" / "rows.jsonl"
    rows = rows_of(file)
    damage(rows[0]["episode"])
    write_jsonl(file, rows)
    with pytest.raises(UserError, match=r"rows.jsonl, row 1: episode is "):
        conversations(group_runs([read_run(tmp_path / "run")]))


def test_without_an_environment_there_is_no_such_section(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for file in (tmp_path / "run").glob("rollouts/*/rows.jsonl"):
        write_jsonl(file, [{k: v for k, v in row.items() if k != "episode"} for row in rows_of(file)])
    assert conversations(group_runs([read_run(tmp_path / "run")])) == []
