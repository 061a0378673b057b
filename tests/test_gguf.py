"""A GGUF as the model of a stage: read whole, split as it was learned, remembered; or refused in one line."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_data import TEXTS

from rlhf.cli import main
from rlhf.config import DataConfig, LoraConfig, ModelConfig, PPOConfig, RewardModelConfig, SFTConfig
from rlhf.config.generation import GenerationConfig
from rlhf.config.rewards import RewardSpec
from rlhf.errors import UserError
from rlhf.models.adapters import POLICY_FILE
from rlhf.models.load import build_from_scratch, load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.policy.files import load_policy
from rlhf.stages.evaluate import policy_of
from rlhf.stages.reward_model import _build as build_reward_model
from rlhf.stages.sft import run_sft

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")
from gguf_writer import write_gguf

TOKENS = torch.tensor([[40, 60, 80, 7, 1, 99]])


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory) -> Path:
    """A Llama whose rows are whole blocks of 32 weights, as GGUF rounds them."""
    from rlhf.config import ScratchModel

    torch.manual_seed(0)
    scratch = ScratchModel(architecture="llama", hidden_size=96, layers=2, heads=3, context_length=96, vocab_size=320)
    model, tokenizer = build_from_scratch(scratch, TEXTS)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    folder = tmp_path_factory.mktemp("wide_llama")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_folder(wide_llama, tmp_path_factory) -> Path:
    """A folder with `tiny.gguf`, its matrices rounded to four bits, and nothing else."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "tiny.gguf", wide_llama, quantization="Q4_1")
    return folder


@pytest.mark.parametrize("quantization", ["F32", "Q4_1"])
def test_weights_are_those_of_the_file(wide_llama, tmp_path, quantization):
    rounded = write_gguf(tmp_path / "m.gguf", wide_llama, quantization=quantization)
    model = load_causal_lm(ModelConfig(name_or_path=str(tmp_path / "m.gguf")))
    original = load_causal_lm(ModelConfig(name_or_path=str(wide_llama)))
    changed = {
        name for name, weight in original.state_dict().items() if not torch.equal(weight, rounded.get(name, weight))
    }
    assert len(changed) == (0 if quantization == "F32" else 14)  # 7 matrices in 2 layers
    original.load_state_dict(rounded, strict=False)
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert torch.equal(model(TOKENS).logits, original(TOKENS).logits)


def test_what_is_loaded_is_a_plain_model(gguf_folder, tmp_path):
    model = load_causal_lm(ModelConfig(name_or_path=str(gguf_folder), gguf_file="tiny.gguf", dtype="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    again = load_causal_lm(ModelConfig(name_or_path=str(tmp_path), dtype="bfloat16"))
    assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)


def test_a_file_of_the_same_name_elsewhere_is_not_read(gguf_folder, wide_llama, tmp_path, monkeypatch):
    expected = load_causal_lm(ModelConfig(name_or_path=str(gguf_folder / "tiny.gguf")))(TOKENS).logits
    write_gguf(tmp_path / "tiny.gguf", wide_llama, quantization="Q8_0")
    monkeypatch.chdir(tmp_path)
    found = load_causal_lm(ModelConfig(name_or_path=str(gguf_folder), gguf_file="tiny.gguf"))(TOKENS).logits
    assert torch.equal(found, expected)


def test_other_files_of_the_folder_have_no_say(gguf_folder, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models["gpt2"], tmp_path / "both")
    shutil.copy(gguf_folder / "tiny.gguf", folder)
    model = load_causal_lm(ModelConfig(name_or_path=str(folder), gguf_file="tiny.gguf"))
    alone = load_causal_lm(ModelConfig(name_or_path=str(gguf_folder / "tiny.gguf")))
    assert torch.equal(model(TOKENS).logits, alone(TOKENS).logits)
    tokenizer, expected = (load_tokenizer(str(place / "tiny.gguf")) for place in (folder, gguf_folder))
    assert tokenizer.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert tokenizer.chat_template == expected.chat_template
    assert tokenizer.special_tokens_map == expected.special_tokens_map


# --- tokenizers


def test_tokenizer_has_template_and_padding_of_the_file(gguf_folder):
    tokenizer = load_tokenizer(str(gguf_folder), gguf_file="tiny.gguf")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|eos|>"
    turns = [{"role": "user", "content": "Hi"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "user: Hi<|eos|>assistant: "
    for text in ("  12 naïve\n\n", "<|eos|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|eos|>")["input_ids"] == [1]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["x", "Ġ=", "ĠĠ", "1", "2", ";"]),
        ("gpt-2", ["x", "Ġ=", "Ġ", "Ġ12", ";"]),
        ("llama-bpe", ["x", "Ġ=", "Ġ", "Ġ", "12", ";"]),  # transformers knows this one
    ],
)
def test_text_is_split_as_the_vocabulary_was_learned(wide_llama, tmp_path, pre, pieces):
    write_gguf(tmp_path / "m.gguf", wide_llama, pre=pre)
    split = load_tokenizer(str(tmp_path / "m.gguf")).backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in split.pre_tokenize_str("x =  12;")] == pieces


def test_an_unknown_split_is_refused(wide_llama, tmp_path):
    write_gguf(tmp_path / "m.gguf", wide_llama, pre="of-tomorrow")
    with pytest.raises(UserError, match=r"m.gguf splits text in a way that is not known here .*'of-tomorrow'"):
        load_tokenizer(str(tmp_path / "m.gguf"))


# --- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left_out": "blk.1.ffn_up.weight"}, r"no tensor for 1 weights .* model.layers.1.mlp.up_proj.weight"),
        ({"extra": {"rope_freqs.weight": np.ones(16, dtype=np.float32)}}, r"holds \d+ numbers, of which \d+ are read"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(96, dtype=np.float32)}}, r"holds \d+ numbers, of which \d+ are read"),
        ({"settings": {"llama.rope.scaling.type": "yarn"}}, r"holds rotary scaling \(yarn\), which is not read"),
    ],
)
def test_a_file_that_would_become_another_model_is_refused(wide_llama, tmp_path, change, message):
    write_gguf(tmp_path / "m.gguf", wide_llama, **change)
    with pytest.raises(UserError, match=message):
        load_causal_lm(ModelConfig(name_or_path=str(tmp_path / "m.gguf")))


@pytest.mark.parametrize("kept", [0, 3, 30, 0.1, 0.5, 0.99])
def test_a_damaged_file_is_one_line(gguf_folder, tmp_path, kept):
    whole = (gguf_folder / "tiny.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match=r"^cannot read the GGUF 'm.gguf' in '.*' \(.*\)$"):
        load_causal_lm(ModelConfig(name_or_path=str(tmp_path), gguf_file="m.gguf"))


def test_a_text_file_is_no_gguf(tmp_path):
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\n" * 40)
    for load in (
        lambda: load_causal_lm(ModelConfig(name_or_path=f"{tmp_path}/m.gguf")),
        lambda: load_tokenizer(f"{tmp_path}/m.gguf"),
    ):
        with pytest.raises(UserError, match=r"cannot read the GGUF 'm.gguf'"):
            load()


def test_a_wrong_name_lists_the_files(gguf_folder):
    with pytest.raises(UserError, match=r"'big.gguf' is not in .*; GGUF files there: tiny.gguf$"):
        load_causal_lm(ModelConfig(name_or_path=str(gguf_folder), gguf_file="big.gguf"))
    with pytest.raises(UserError, match=r"'big.gguf' is not in .*; GGUF files there: tiny.gguf$"):
        load_tokenizer(str(gguf_folder / "big.gguf"))


def test_a_folder_of_ggufs_says_what_to_set(gguf_folder):
    with pytest.raises(UserError, match=r"holds GGUF files \(tiny.gguf\); set model.gguf_file to one"):
        load_causal_lm(ModelConfig(name_or_path=str(gguf_folder)))


def test_a_hub_model_without_that_file_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"no GGUF 'a.gguf' in a folder or a reachable hub model 'nobody/nothing'"):
        load_causal_lm(ModelConfig(name_or_path="nobody/nothing", gguf_file="a.gguf"))


def test_the_missing_package_is_named(gguf_folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gguf" else find(name, *a))
    with pytest.raises(UserError, match=re.escape("needs the package gguf; pip install 'rlhf-ppo[gguf]'")):
        load_causal_lm(ModelConfig(name_or_path=str(gguf_folder / "tiny.gguf")))


def test_contradictions():
    with pytest.raises(UserError, match=r"gguf_file is 'a.gguf', but name_or_path does not say where"):
        ModelConfig(gguf_file="a.gguf")
    with pytest.raises(UserError, match=r"'models/b.gguf' names a GGUF, and gguf_file 'a.gguf' too"):
        ModelConfig(name_or_path="models/b.gguf", gguf_file="a.gguf")
    for names in ({"name_or_path": "models", "gguf_file": "a.gguf"}, {"name_or_path": "models/a.gguf"}):
        with pytest.raises(UserError, match=r"quantization is 4bit, but the model is a GGUF"):
            ModelConfig(**names, quantization="4bit")
        with pytest.raises(UserError, match=r"the model is a GGUF, which vllm"):
            PPOConfig(
                model=ModelConfig(**names),
                data=DataConfig(train="x.jsonl"),
                rewards=[RewardSpec(path="length")],
                generation=GenerationConfig(engine="vllm"),
            )


# --- stages


def small(tmp_path: Path, pairs: str, model: dict[str, str], **changes) -> str:
    config = {
        "output_dir": str(tmp_path / "ppo"),
        "model": model,
        "data": {"train": pairs},
        "rewards": [{"path": "length", "args": {"maximum": 4, "margin": 10}}],
        "sampling": {"max_response_tokens": 8},
        "lora": {"r": 2},
        "value_warmup": {"max_updates": 0},
        "updates": 2,
        "batch_size": 4,
        "minibatch_size": 4,
        "micro_batch_size": 4,
        "learning_rate": 1e-3,
        "tracking": {"wandb": "disabled", "tensorboard": False},
    }
    file = tmp_path / "ppo.yaml"
    file.write_text(yaml.safe_dump(config | changes))
    return str(file)


@pytest.fixture
def trained(gguf_folder, tmp_path, pairs) -> Path:
    """The folder of a policy that PPO trained on the GGUF."""
    file = small(tmp_path, pairs, {"name_or_path": str(gguf_folder), "gguf_file": "tiny.gguf"})
    main(["ppo", "--config", file])
    return tmp_path / "ppo" / "policy"


def test_ppo_starts_at_the_reference_and_the_policy_finds_its_base(gguf_folder, trained):
    first = json.loads((trained.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert first["objective/kl"] == 0
    assert first["policy/ratio_first_minibatch"] == pytest.approx(1, abs=1e-5)
    assert json.loads((trained / "adapter_config.json").read_text())["base_model_name_or_path"] == str(gguf_folder)
    description = json.loads((trained / POLICY_FILE).read_text())
    assert (description["base"], description["gguf_file"]) == (str(gguf_folder), "tiny.gguf")
    policy, tokenizer = policy_of(ModelConfig(name_or_path=str(trained)))
    base = load_causal_lm(ModelConfig(name_or_path=str(gguf_folder / "tiny.gguf")))
    with policy.reference():
        assert torch.equal(policy.language_model(TOKENS).logits, base(TOKENS).logits)
    assert not torch.equal(policy.language_model(TOKENS).logits, base(TOKENS).logits)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert load_policy(trained).base_gguf_file == "tiny.gguf"


def test_the_card_loads_the_policy_on_its_gguf(trained):
    card = (trained / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace('"."', repr(str(trained)))
    scope = {}
    exec(code.partition("tokenizer = ")[0], scope)
    expected = load_policy(trained).language_model(TOKENS).logits
    torch.testing.assert_close(scope["model"].eval()(TOKENS).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_doctor_examines_a_gguf(gguf_folder, tmp_path, pairs, capsys):
    main(["doctor", "--config", small(tmp_path, pairs, {"name_or_path": str(gguf_folder / "tiny.gguf")})])
    found = capsys.readouterr().out
    assert "is EOS too" in found
    assert "failure" not in found


def test_sft_of_a_gguf_is_a_plain_model(gguf_folder, tmp_path, pairs):
    model = ModelConfig(name_or_path=str(gguf_folder / "tiny.gguf"))
    folder = run_sft(
        SFTConfig(
            model=model,
            data=DataConfig(train=pairs),
            output_dir=str(tmp_path / "sft"),
            lora=LoraConfig(r=2),
            batch_size=4,
            epochs=3,
            learning_rate=1e-2,
        )
    )
    tuned = load_causal_lm(ModelConfig(name_or_path=str(folder)))
    assert not torch.equal(tuned(TOKENS).logits, load_causal_lm(model)(TOKENS).logits)
    saved = load_tokenizer(str(folder)).backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in saved.pre_tokenize_str("  12")] == ["ĠĠ", "1", "2"]


def test_a_reward_model_grows_on_a_gguf(gguf_folder, tmp_path):
    model = ModelConfig(name_or_path=str(gguf_folder), gguf_file="tiny.gguf")
    scorer, tokenizer = build_reward_model(RewardModelConfig(model=model, data=DataConfig(train="a", eval="b")))
    base = load_causal_lm(model)
    assert torch.equal(scorer.model(TOKENS).last_hidden_state, base.model(TOKENS).last_hidden_state)
    assert scorer.score.weight.shape == (1, 96)
    assert scorer.config.pad_token_id == tokenizer.pad_token_id
