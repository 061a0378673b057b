"""A response ends with every token that its model's folder names, and with the one that closes a turn."""

import json

import pytest
import torch
from chat_folders import STYLES, save_chat_model
from tiny_runs import COUNT_E, make_config

from rlhf import AutoModelForCausalLMWithValueHead
from rlhf import PPOConfig as ClassicConfig
from rlhf import PPOTrainer as ClassicTrainer
from rlhf.config import DataConfig, EvaluateConfig, ModelConfig, SamplingConfig, SFTConfig
from rlhf.data.chat import closing_text, closing_token
from rlhf.data.examples import load_examples, tokenize
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizer import load_tokenizer
from rlhf.rewards import RewardSum
from rlhf.sampling.stopping import stop_token_ids
from rlhf.stages.evaluate import run_evaluate
from rlhf.stages.ppo import build_trainer
from rlhf.stages.sft import run_sft

ENDS = [
    (style, token)
    for style, (eos, named, closing, _) in STYLES.items()
    for token in dict.fromkeys([eos, *named, closing])
]


def spelled(tokenizer, tokens):
    return tokenizer.convert_ids_to_tokens(tokens)


@pytest.mark.parametrize("style", STYLES)
def test_all_that_a_folder_names(tiny_models, tmp_path, style):
    folder = str(save_chat_model(tmp_path, tiny_models["gpt2"], style))
    model, tokenizer = load_causal_lm(ModelConfig(name_or_path=folder)), load_tokenizer(folder)
    eos, named, closing, _ = STYLES[style]
    found = spelled(tokenizer, stop_token_ids(model, tokenizer))
    assert found[0] == eos
    assert set(found) == {eos, *named, closing}
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("template", "text", "token"),
    [
        ("{{ messages[1]['content'] }}<|eos|>", "<|eos|>", "<|eos|>"),
        ("{{ messages[1]['content'] }} \n<|pad|><|eos|>", "<|pad|><|eos|>", "<|pad|>"),
        ("{{ messages[1]['content'] }}\n### Question", "### Question", None),
        ("{{ messages[1]['content'] }}", "", None),
        ("{{ raise_exception('no') }}", "", None),
        (None, "", None),
    ],
)
def test_what_a_template_closes_an_answer_with(tiny_models, template, text, token):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    tokenizer.chat_template = template
    assert closing_text(tokenizer) == text
    closing = closing_token(tokenizer)
    assert closing == (None if token is None else tokenizer.convert_tokens_to_ids(token))


@pytest.mark.parametrize(("style", "token"), ENDS)
def test_each_of_them_ends_a_response(tiny_models, pairs, tmp_path, style, token):
    """In the native loop, where a missing end is paid for, in evaluate, and in the classic loop."""
    folder = save_chat_model(tmp_path / "model", tiny_models["gpt2"], style, says=token)
    options = {"sampling": SamplingConfig(max_new_tokens=4), "missing_eos_penalty": 2.0}
    config = make_config(folder, pairs, **options)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    rollout = trainer.update().rollout
    assert rollout.has_eos.all()
    assert rollout.lengths.tolist() == 8 * [1]
    assert spelled(trainer.tokenizer, rollout.response_ids(0)) == [token]
    assert (rollout.scores == 0).all()  # the text is empty, and nothing is missing

    evaluate = EvaluateConfig(
        output_dir=str(tmp_path / "evaluation"),
        model=ModelConfig(name_or_path=str(folder)),
        data=DataConfig(train=pairs, as_chat=True),
        rewards=[COUNT_E],
        sampling=SamplingConfig(max_new_tokens=4, temperature=0),
    )
    means = run_evaluate(evaluate).means
    assert (means["eos_rate"], means["length"]) == (1.0, 1.0)

    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    settings = ClassicConfig(batch_size=2, mini_batch_size=2)
    classic = ClassicTrainer(settings, model, tokenizer=trainer.tokenizer)
    queries = [torch.tensor([5, 6]), torch.tensor([7])]
    responses = classic.generate(queries, return_prompt=False, do_sample=True, top_k=0, max_new_tokens=4)
    assert [spelled(trainer.tokenizer, row.tolist()) for row in responses] == [[token], [token]]
    classic.step(queries, responses, [1.0, 1.0])
    assert classic.native.given.responses.has_eos.all()


def test_an_end_that_is_passed_to_the_classic_generate(tiny_models, tmp_path):
    """It ends a response and so does EOS; what else the folder names does not any more, and -1 leaves no end at all."""
    queries = [torch.tensor([5, 6]), torch.tensor([7])]
    for says, passed, length in [
        ("<end_of_turn>", "<end_of_turn>", 1),
        ("<eos>", "<end_of_turn>", 1),
        ("<end_of_turn>", "<eos>", 4),
        ("<eos>", None, 4),
    ]:
        folder = save_chat_model(tmp_path / f"{says}{passed}", tiny_models["gpt2"], "gemma", says)
        tokenizer = load_tokenizer(str(folder))
        model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
        trainer = ClassicTrainer(ClassicConfig(batch_size=2, mini_batch_size=2), model, tokenizer=tokenizer)
        eos = -1 if passed is None else tokenizer.convert_tokens_to_ids(passed)
        ask = {"do_sample": True, "top_k": 0, "max_new_tokens": 4, "return_prompt": False, "eos_token_id": eos}
        assert [len(row) for row in trainer.generate(queries, **ask)] == [length, length]


@pytest.mark.parametrize("style", STYLES)
def test_sft_teaches_what_sampling_stops_at(tiny_models, pairs, tmp_path, style):
    folder = save_chat_model(tmp_path / "model", tiny_models["gpt2"], style)
    tokenizer = load_tokenizer(str(folder))
    rows = tokenize(load_examples(pairs, "train"), tokenizer, DataConfig(train=pairs, as_chat=True), 96)
    assert {tokenizer.decode(row.completion_ids[-1:]) for row in rows} == {STYLES[style][2]}
    config = SFTConfig(
        output_dir=str(tmp_path / "sft"),
        model=ModelConfig(name_or_path=str(folder)),
        data=DataConfig(train=pairs, as_chat=True),
        num_train_epochs=12,
        batch_size=4,
        learning_rate=5e-3,
    )
    trained = run_sft(config)
    named = json.loads((trained / "generation_config.json").read_text())["eos_token_id"]
    assert set(spelled(tokenizer, named)) == {*STYLES[style][1], STYLES[style][2]}  # for whoever else loads the folder
    evaluate = EvaluateConfig(
        output_dir=str(tmp_path / "evaluation"),
        model=ModelConfig(name_or_path=str(trained)),
        data=DataConfig(train=pairs, as_chat=True),
        rewards=[COUNT_E],
        sampling=SamplingConfig(max_new_tokens=48, temperature=0),
    )
    assert run_evaluate(evaluate).means["eos_rate"] > 0.5
