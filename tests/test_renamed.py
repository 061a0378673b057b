"""Old names of settings still work, say what they are called now, and do so in every place where one is given."""

import json
import warnings
from dataclasses import fields

import pytest
import yaml

from rlhf import config as configs
from rlhf.cli import main
from rlhf.config import DataConfig, PPOConfig, SamplingConfig
from rlhf.config.command_line import parse, read
from rlhf.config.renamed import KEYS, renamed
from rlhf.config.rewards import RewardSpec
from rlhf.errors import UserError
from rlhf.runs.folder import CONFIG_FILE, open_run

DATA, REWARDS = DataConfig(train="prompts.jsonl"), [RewardSpec(path="length")]


def test_the_table_names_real_settings() -> None:
    for section, names in KEYS.items():
        present = {field.name for field in fields(getattr(configs, section))}
        assert set(names.values()) <= present, section
        assert not names.keys() & present, section


def test_a_config_is_made_and_read_by_old_names() -> None:
    with pytest.warns(FutureWarning, match="updates is now called num_updates"):
        config = PPOConfig(data=DATA, rewards=REWARDS, updates=3)
    assert config.num_updates == config.updates == 3
    with pytest.warns(FutureWarning, match="max_response_tokens is now called max_new_tokens"):
        assert SamplingConfig(max_response_tokens=5).max_new_tokens == 5
    with pytest.warns(FutureWarning), pytest.raises(UserError, match="updates and num_updates are one setting"):
        PPOConfig(data=DATA, rewards=REWARDS, updates=3, num_updates=4)


def test_old_names_in_a_file_and_on_the_command_line(tmp_path) -> None:
    file = tmp_path / "ppo.yaml"
    file.write_text(
        "data: {train: prompts.jsonl}\nrewards: [{path: length}]\nupdates: 4\nsampling: {max_response_tokens: 7}\n"
        "checkpoint: {every: 3, keep: 5}\nscore_normalisation: standardise\n"
    )
    with pytest.warns(FutureWarning):
        config = parse(PPOConfig, ["--config", str(file), "--epochs", "2", "--sampling.max_response_tokens=9"])
    assert (config.num_updates, config.num_ppo_epochs, config.sampling.max_new_tokens) == (4, 2, 9)
    assert (config.checkpoint.save_steps, config.checkpoint.save_total_limit) == (3, 5)
    assert config.score_normalization == "standardize"
    with pytest.warns(FutureWarning, match=r"ppo\.updates is now called ppo\.num_updates"):
        assert read(configs.PipelineConfig, ["--ppo.updates=3"])[0] == {"ppo": {"num_updates": 3}}


def test_the_command_line_says_it_once_in_plain_words(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # it would wait for a hub that is not there
    (tmp_path / "empty.jsonl").write_text("")
    common = ["ppo", "--data.train", str(tmp_path / "empty.jsonl"), "--rewards", '[{"path": "length"}]']
    with pytest.raises(SystemExit):
        main([*common, "--updates", "0"])
    assert capsys.readouterr().err.splitlines()[0] == "rlhf ppo: error: num_updates is 0; it must be greater than 0"
    with pytest.raises(SystemExit):
        main([*common, "--model.name_or_path", "none/none", "--updates", "1", "--output_dir", str(tmp_path / "run")])
    assert capsys.readouterr().err.splitlines().count("rlhf ppo: updates is now called num_updates") == 1


def test_a_run_that_was_begun_under_old_names_goes_on(tmp_path) -> None:
    config = PPOConfig(output_dir=str(tmp_path / "run"), data=DATA, rewards=REWARDS, num_updates=3)
    open_run(config.output_dir, config)
    file = tmp_path / "run" / CONFIG_FILE
    begun = yaml.safe_load(file.read_text())
    old = {new: old for old, new in KEYS["PPOConfig"].items()}
    file.write_text(json.dumps({old.get(key, key): value for key, value in begun.items()}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_run(config.output_dir, config) == tmp_path / "run"


def test_sections_that_may_be_empty_are_looked_into() -> None:
    given = {"data": {"train": "x"}, "sampling": {"max_response_tokens": 3}, "prompt": ["a"]}
    with pytest.warns(FutureWarning):
        assert renamed(configs.GenerateConfig, given)["sampling"] == {"max_new_tokens": 3}
