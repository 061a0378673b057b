"""What the JSON files of a model's folder say is followed, refused or said."""

import json
import shutil

import pytest
import torch
from tiny_policy import make_policy

from rlhf import AutoModelForCausalLMWithValueHead
from rlhf.config import ModelConfig, SamplingConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.sampling.responses import continued
from rlhf.sampling.stopping import as_ids, stop_token_ids


def native(folder):
    load_tokenizer(folder)
    load_causal_lm(ModelConfig(name_or_path=folder))


@pytest.mark.parametrize("load", [native, AutoModelForCausalLMWithValueHead.from_pretrained], ids=["native", "classic"])
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "cannot load .*optimum"),
        ("config.json", {"dtype": "float99"}, "cannot load .*AttributeError: .*float99"),
        ("generation_config.json", {"eos_token_id": "<end>"}, "eos_token_id is '<end>'; it must be a token id"),
        ("generation_config.json", {"eos_token_id": [1, 2.5]}, r"eos_token_id is \[1, 2.5\]; it must be a token id"),
        ("generation_config.json", None, "generation_config.json cannot be read .*; it is damaged or incomplete"),
    ],
)
def test_settings_that_cannot_be_followed_are_one_line(tiny_models, tmp_path, file, change, message, load):
    """transformers would raise an error of its own, or go on without the file."""
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    said = "{" if change is None else json.dumps(json.loads((folder / file).read_text()) | change)
    (folder / file).write_text(said)
    with pytest.raises(UserError, match=message) as refusal:
        load(str(folder))
    assert "\n" not in str(refusal.value)


def test_ends_that_config_json_alone_names(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 7]}))
    for said, expected in (({}, [1, 7]), ({"eos_token_id": None}, [1, 7]), ({"eos_token_id": 9}, [1, 9])):
        (folder / "generation_config.json").write_text(json.dumps(said))
        model = load_causal_lm(ModelConfig(name_or_path=str(folder)))
        assert stop_token_ids(model, load_tokenizer(str(folder))) == expected


@pytest.mark.parametrize("wrong", ["1", 1.0, [1, "2"], [None]])
def test_an_end_that_is_no_token(wrong):
    with pytest.raises(UserError, match=r"eos_token_id is .*; it must be a token id, or a list of them"):
        as_ids(wrong)
    assert as_ids(torch.tensor([1, 2])) == as_ids((1, 2)) == [1, 2]


def test_what_a_folder_wants_of_sampling_is_said_once(tiny_models, tmp_path, capsys):
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "model")
    wants = {"do_sample": True, "temperature": 0.6, "top_k": 0, "top_p": 1.0, "eos_token_id": 1}
    more = {"repetition_penalty": 1.3, "min_new_tokens": 0, "stop_strings": ["e"], "suppress_tokens": [5]}
    (folder / "generation_config.json").write_text(json.dumps(wants | more))
    policy, tokenizer = make_policy(folder), load_tokenizer(str(folder))
    capsys.readouterr()

    def said(**settings) -> str:
        continued(policy, tokenizer, SamplingConfig(max_new_tokens=2, **settings), None, [[5, 6]])
        return capsys.readouterr().err

    unfollowed = "repetition_penalty=1.3, suppress_tokens=[5]"
    line = "note: generation_config.json of the model has {}; not followed, `sampling` alone counts\n"
    assert said(temperature=0.6, stop=["e"]) == line.format(unfollowed)
    assert said(temperature=0.6, stop=["e"]) == ""
    assert said() == line.format(unfollowed + ", temperature=0.6, stop_strings=['e']")
