"""What a model's folder, its tokenizer or its data say, and what used to be read as something else."""

import json
from pathlib import Path

import pytest
import torch
from chat_templates import tokenizer_of
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Phi3Config

from rlhf.config import DataConfig, SamplingConfig
from rlhf.data.examples import tokenize
from rlhf.data.parsing import parse_row
from rlhf.data.preferences import parse_pair, tokenize_pairs
from rlhf.errors import UserError
from rlhf.models.locate import model_in
from rlhf.models.shape import context_length
from rlhf.models.tokenizer import require_known_tokens
from rlhf.rewards.learned import Settings, _encoder, read_settings
from rlhf.sampling.decode import choose
from rlhf.sampling.folder_settings import not_followed
from rlhf.stages.fetch import PROVENANCE_FILE, SOURCES, is_there


@pytest.mark.parametrize("family", ["gemma", "chatml"])
def test_a_reward_model_reads_the_token_that_it_was_trained_on(family):
    tokenizer = tokenizer_of(family)
    tokenizer.eos_token = "<eos>"  # as of gemma-it, or of a base with a template: not what closes a turn
    pair = parse_pair({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, "row")
    [trained] = tokenize_pairs([pair], tokenizer, DataConfig(as_chat=True), 96)
    settings = Settings(0.0, 1.0, "texts", as_chat=True)
    assert _encoder(tokenizer, settings)("Hi", "Ho") == trained.chosen_ids
    assert trained.chosen_ids[-1] != tokenizer.eos_token_id
    as_text = _encoder(tokenizer, Settings(0.0, 1.0, "texts", as_chat=False))
    assert as_text("Hi", "Ho")[-1] == tokenizer.eos_token_id


def test_the_settings_of_a_reward_model_are_found_by_its_run(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    settings = Settings(1.5, 2.0, "texts")
    (model / "reward_model.json").write_text(json.dumps(settings._asdict()), encoding="utf-8")
    assert read_settings(str(tmp_path / "run")) == read_settings(str(model)) == settings


def test_longrope_has_the_context_of_its_short_factors():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4}
    shape = {
        "max_position_embeddings": 128,
        "original_max_position_embeddings": 16,
        "vocab_size": 32,
        "pad_token_id": 0,
    }
    long = AutoModelForCausalLM.from_config(Phi3Config(**sizes, **shape, rope_parameters=factors))
    plain = AutoModelForCausalLM.from_config(Phi3Config(**sizes, **shape))
    assert (context_length(long), context_length(plain)) == (16, 128)


def test_a_pad_token_beyond_the_embedding(tiny_models):
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"])
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    require_known_tokens(model, tokenizer, [[0]])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(UserError, match=r"token '\[PAD\]' has the id"):
        require_known_tokens(model, tokenizer, [[0]])


def test_a_reference_takes_no_room_from_the_prompt_where_responses_are_sampled():
    tokenizer = tokenizer_of("gemma")

    def kept(row, **data):
        rows = tokenize([parse_row(row, "row")], tokenizer, DataConfig(max_prompt_tokens=90, **data), 100, 40)
        return [len(row.prompt_ids) for row in rows]

    long = {"prompt": "p" * 50}
    without = kept(long, overlong="truncate_left")
    assert without == kept({**long, "completion": "c" * 30}, overlong="truncate_left") == [51]  # and BOS
    assert kept({**long, "completion": "c" * 30}, overlong="drop") == [51]
    assert kept({**long, "completion": "c" * 60}, overlong="error") == [51]


def test_a_run_is_looked_into_each_time(tmp_path, capsys):
    run = tmp_path / "pipe"
    for place in ("sft/model", "ppo/policy"):
        (run / place).mkdir(parents=True)
        (run / place / "config.json").write_text("{}", encoding="utf-8")
        assert model_in(str(run)) == model_in(str(run)) == str(run / place)
    assert capsys.readouterr().err.count("is the folder of a run") == 2


def test_greedy_decoding_of_a_broken_model():
    with pytest.raises(UserError, match="the logits of the model are not finite"):
        choose(torch.full((1, 4), float("nan")), SamplingConfig(temperature=0.0), None)


def test_settings_of_a_folder_that_are_not_followed_are_named():
    model = type("Model", (), {"generation_config": GenerationConfig(min_length=20, num_beams=4)})()
    assert not_followed(model, SamplingConfig()) == ["min_length=20", "num_beams=4"]


def test_provenance_alone_is_no_model(tmp_path):
    [source] = [source for name, source in SOURCES.items() if name == "smollm2"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / PROVENANCE_FILE).write_text(json.dumps({"model": source.model}), encoding="utf-8")
    with pytest.raises(UserError, match="is not a fetched"):
        is_there(source, folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}", encoding="utf-8")
    assert is_there(source, Path(folder))
