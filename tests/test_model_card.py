"""The README.md in every model's folder: what it says, and that its code runs."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny_data import write_pairs
from tiny_runs import Crash, make_config

from rlhf.config import CheckpointConfig, DataConfig, LoraConfig, ModelConfig, RewardModelConfig, SFTConfig
from rlhf.policy.files import load_policy
from rlhf.report.card_parts import first_and_last, tenth
from rlhf.report.model_card import CARD_FILE, NOT_HELD_OUT, add_held_out, ppo_card, reward_card, sft_card
from rlhf.stages.ppo import run_ppo

METRICS = [
    {
        "step": step, "objective/score": step, "objective/kl": 2.0 * step, "objective/entropy": 1.5,
        "response/length": 40.0, "response/eos_rate": 0.25, "reward/count_e": 3.0, "time/rollout": 77.0 + step,
    }
    for step in range(1, 21)
]  # fmt: skip


def code_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def front_matter(card: str) -> dict:
    _, block, _ = card.split("---\n", 2)
    return yaml.safe_load(block)


def run_code(folder: Path, block: str, monkeypatch) -> dict:
    """The names that a code block leaves behind, run in the folder of its card."""
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(block, names)
    return names


@pytest.fixture(scope="module")
def config(tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    data = DataConfig(train=write_pairs(folder), system_prompt='Say "yes".', max_prompt_tokens=64)
    options = {"output_dir": str(folder / "run"), "num_updates": 3, "checkpoint": CheckpointConfig(save_steps=1)}
    return dataclasses.replace(make_config(tiny_models["gpt2"], data.train, **options), data=data)


@pytest.fixture(scope="module")
def cards(config) -> dict[str, str]:
    """Of a run that crashed in its last update: that of its last checkpoint, and that of the policy in the end."""
    run = Path(config.output_dir)
    with pytest.raises(RuntimeError, match="power failure"):
        run_ppo(config, callbacks=[Crash(3)])
    checkpoint = (run / "checkpoints" / "checkpoint-000002" / "policy" / CARD_FILE).read_text()
    return {"checkpoint": checkpoint, "policy": (run_ppo(config) / CARD_FILE).read_text()}


def test_an_interrupted_run_has_the_card_of_a_whole_one(config, cards, tmp_path):
    whole = run_ppo(dataclasses.replace(config, output_dir=str(tmp_path / "whole")))
    assert (whole / CARD_FILE).read_text() == cards["policy"]


def test_a_checkpoint_says_what_it_is(cards):
    assert "update 2 of 3" in cards["checkpoint"]
    assert "| updates | 2 of 3 |" in cards["checkpoint"]
    assert "2 of 3" not in cards["policy"]


def test_nothing_of_this_machine_is_in_it(config, cards, tiny_models):
    for card in cards.values():
        assert str(Path(config.output_dir).parent) not in card
        assert str(tiny_models["gpt2"].parent) not in card
        assert str(Path.home()) not in card
        assert front_matter(card)["tags"] == ["ppo", "rlhf", "lora"]
        assert "base_model" not in front_matter(card)  # a folder here, which the hub has never heard of
        assert "`pairs.jsonl`" in card


def test_the_code_of_a_policy_loads_what_was_trained(config, cards, monkeypatch):
    folder = Path(config.output_dir) / "policy"
    with_peft, with_rlhf = (run_code(folder, block, monkeypatch) for block in code_blocks(cards["policy"]))
    ids = with_peft["prompt"]["input_ids"]
    assert with_peft["tokenizer"].decode(ids[0]) == 'Say "yes".\nYour prompt\n'
    policy = load_policy(folder)
    with torch.no_grad():
        expected = policy.language_model(ids).logits
        torch.testing.assert_close(with_peft["model"](ids).logits, expected)
        torch.testing.assert_close(with_rlhf["policy"].language_model(ids).logits, expected)
        with policy.reference():
            assert not torch.allclose(policy.language_model(ids).logits, expected)


def test_results_are_means_over_the_first_and_the_last_tenth(config):
    card = ppo_card(config, 20, METRICS, [{"step": 2, "name": "kl", "message": "update 2: too far"}])
    assert "| mean | first 2 updates | last 2 updates |" in card
    assert "| score, the weighted sum of the rewards | 1.500 | 19.500 |" in card
    assert "| reward/count_e | 3.000 | 3.000 |" in card
    assert "39 nats" in card
    assert "no KL penalty" not in card
    assert "- The run warned: update 2: too far" in card
    assert "time/" not in card  # differs from run to run


@pytest.mark.parametrize(("n_rows", "k"), [(3, 1), (20, 2), (400, 20)])
def test_the_rows_between_are_not_read(tmp_path, n_rows, k):
    """Long rows, so that the last of them are more than one look at the end of the file takes in."""
    lines = [json.dumps({"step": step, "text": "\u2028x" * 2000}, ensure_ascii=False) + "\n" for step in range(n_rows)]
    if n_rows == 400:
        lines[n_rows // 2] = "no JSON\n"
    (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    assert tenth(n_rows) == k
    assert [row["step"] for row in first_and_last(tmp_path / "metrics.jsonl", k)] == [
        *range(k), *range(n_rows - k, n_rows),
    ]  # fmt: skip


def test_a_run_without_a_kl_penalty_says_so(config):
    card = ppo_card(dataclasses.replace(config, kl_coef=0.0), 20, METRICS, [])
    assert "39 nats" in card
    assert "no KL penalty" in card


def test_hub_names_are_in_the_front_matter(config):
    from huggingface_hub import ModelCard

    model, data = ModelConfig(name_or_path="openai/gpt-x"), DataConfig(train="someone/prompts")
    card = ppo_card(dataclasses.replace(config, model=model, data=data), 3, METRICS, [])
    facts = ModelCard(card).data.to_dict()
    assert facts["base_model"] == "openai/gpt-x"
    assert facts["datasets"] == ["someone/prompts"]
    assert facts["library_name"] == "peft"
    assert "local folder" not in card


def test_held_out_results_take_the_place_of_the_admission(cards, tmp_path):
    (tmp_path / CARD_FILE).write_text(cards["policy"])
    assert NOT_HELD_OUT in cards["policy"]
    for _ in range(2):  # a pipeline that is started again says it only once
        add_held_out(tmp_path, {"reward": 0.25, "only before": 1.0}, {"reward": 0.75})
    card = (tmp_path / CARD_FILE).read_text()
    assert card.count("| reward | 0.250 | 0.750 | +0.500 |") == 1
    assert NOT_HELD_OUT not in card
    assert "only before" not in card


def test_the_code_of_an_sft_model(tiny_models, monkeypatch):
    config = SFTConfig(model=ModelConfig(name_or_path="gpt2"), data=DataConfig(train="x.jsonl"), lora=LoraConfig(r=3))
    card = sft_card(config, [{"step": 1, "sft/loss": 2.0}, {"step": 2, "sft/loss": 1.25}])
    assert front_matter(card)["base_model"] == "gpt2"
    assert "| sft/loss | 1.25 |" in card
    assert "| LoRA | r 3, alpha 32, all-linear, merged |" in card
    [block] = code_blocks(card)
    names = run_code(tiny_models["llama"], block, monkeypatch)
    assert names["output"].shape[1] > names["prompt"]["input_ids"].shape[1]


def test_the_code_of_a_reward_model(tiny_models, tmp_path, monkeypatch, capsys):
    from transformers import AutoModelForSequenceClassification

    from rlhf.models.tokenizer import load_tokenizer
    from rlhf.rewards.learned import Settings
    from rlhf.stages.reward_model import fill

    config = RewardModelConfig(
        model=ModelConfig(name_or_path=str(tiny_models["gpt2"])), data=DataConfig(train="x.jsonl", eval="y.jsonl")
    )
    card = reward_card(config, [{"step": 9, "reward/loss": 0.5}], {"held_out_pairs": 7, "accuracy": 0.875})
    assert "7 held-out pairs" in card
    assert "| accuracy | 0.875 |" in card
    model = AutoModelForSequenceClassification.from_pretrained(tiny_models["gpt2"], num_labels=1)
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    model.config.pad_token_id = tokenizer.pad_token_id
    (tmp_path / "model").mkdir()
    fill(tmp_path / "model", model, tokenizer, Settings(mean=0.5, std=2.0), card)
    assert (tmp_path / "model" / CARD_FILE).read_text() == card
    [block] = code_blocks(card)
    names = run_code(tmp_path / "model", block, monkeypatch)
    [score] = names["reward"](["Your prompt"], ["A completion"])
    assert capsys.readouterr().out == f"[{score}]\n"
