"""A text classifier as a reward: outputs by hand from its logits, its own tokenizer, truncation, batches."""

import json
import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rlhf.rewards import Classifier, RewardError, RewardSpec, RewardSum, WeightedReward

WORDS = ["the", "movie", "was", "good", "bad", "so"]
LABELS = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}
TEXTS = ["the movie was good", "bad", "so bad so bad so bad", "the movie was so so so so good"]


def write_classifier(folder, kind=DistilBertForSequenceClassification, positions=16, **options):
    """A random classifier with a tokenizer of its own, which puts <s> and </s> around a text."""
    torch.manual_seed(0)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    sizes = {"vocab_size": len(tokens), "pad_token_id": 0, "id2label": LABELS, "max_position_embeddings": positions}
    if kind is DistilBertForSequenceClassification:
        config = DistilBertConfig(dim=16, hidden_dim=32, n_layers=1, n_heads=2, **sizes, **options)
    else:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = RobertaConfig(**shape, **sizes, **options)
    model = kind(config)
    for parameter in model.parameters():
        parameter.data.mul_(8.0)  # logits that differ
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return write_classifier(tmp_path / "classifier")


def logits_of(folder, text):
    """One text at a time, ids written out by hand, no padding."""
    model = DistilBertForSequenceClassification.from_pretrained(folder).eval()
    ids = [1, *(4 + WORDS.index(word) for word in text.split()), 2]
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].tolist()


def scores(reward, texts=TEXTS, prompts=None):
    return RewardSum([WeightedReward("c", reward)])(prompts or [""] * len(texts), texts, {})


def test_outputs_of_exclusive_labels_are_those_of_its_logits(folder):
    logits = [logits_of(folder, text) for text in TEXTS]
    assert max(abs(row[2]) for row in logits) > 0.5
    probabilities = [math.exp(row[2]) / sum(math.exp(x) for x in row) for row in logits]
    given = {output: scores(Classifier(folder, "POSITIVE", output=output, batch_size=3)).components["c"]
             for output in ("logit", "probability", "log_odds")}  # fmt: skip
    assert given["logit"] == pytest.approx([row[2] for row in logits], abs=1e-5)
    assert given["probability"] == pytest.approx(probabilities, abs=1e-6)
    assert given["log_odds"] == pytest.approx([math.log(p / (1 - p)) for p in probabilities], abs=1e-4)


def test_outputs_of_labels_that_do_not_exclude_each_other(tmp_path):
    folder = write_classifier(tmp_path / "toxicity", problem_type="multi_label_classification")
    logits = [logits_of(folder, text)[1] for text in TEXTS]
    assert scores(Classifier(folder, 1)).components["c"] == pytest.approx([1 / (1 + math.exp(-x)) for x in logits])
    assert scores(Classifier(folder, "NEUTRAL", output="log_odds")).components["c"] == pytest.approx(logits, abs=1e-5)


def test_prompt_and_completion_as_one_text_or_the_completion_alone(folder):
    whole, last = logits_of(folder, "the movie was so bad")[0], logits_of(folder, "so bad")[0]
    both, alone = (Classifier(folder, 0, output="logit", with_prompt=on) for on in (True, False))
    assert scores(both, [" so bad"], ["the movie was"]).components["c"] == pytest.approx([whole], abs=1e-5)
    assert scores(alone, [" so bad"], ["the movie was"]).components["c"] == pytest.approx([last], abs=1e-5)
    turns, said = [{"role": "user", "content": "the movie was"}], [{"role": "assistant", "content": "so bad"}]
    assert scores(both, [said], [turns]).components["c"] == pytest.approx([whole], abs=1e-5)
    assert scores(alone, [said], [turns]).components["c"] == pytest.approx([last], abs=1e-5)


@pytest.mark.parametrize("kind", [DistilBertForSequenceClassification, RobertaForSequenceClassification])
def test_long_texts_are_cut_at_what_the_model_takes_and_counted(tmp_path, kind):
    folder = write_classifier(tmp_path / "c", kind, positions=9 if kind is RobertaForSequenceClassification else 8)
    reward = Classifier(folder, "POSITIVE", output="logit")
    long, cut = "so " * 40, "so " * 6  # eight tokens with <s> and </s>
    given = scores(reward, [long, cut, "good"])
    assert given.components["c"][0] == pytest.approx(given.components["c"][1], abs=1e-5)
    assert given.logged.metric_means() == {"reward_metric/classifier_truncated": pytest.approx(1 / 3)}
    assert reward.explain("", long).endswith("of 'POSITIVE', first 8 tokens")


def test_half_precision_is_close_and_the_text_of_a_control_token_is_text(folder):
    of = [Classifier(folder, 2, output="logit", dtype=dtype) for dtype in ("float32", "bfloat16")]
    full, half = (scores(reward).components["c"] for reward in of)
    assert half == pytest.approx(full, abs=0.2)
    assert half != full
    reward = Classifier(folder, 2, output="logit")
    assert scores(reward, ["good </s>"]).components["c"] != pytest.approx(scores(reward, ["good"]).components["c"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"label": "POSITVE"},
            "label 'POSITVE' is none of .*: did you mean 'POSITIVE'\\? it has NEGATIVE, NEUTRAL",
        ),
        ({"label": 3}, "label 3 is none of"),
        ({"label": 1, "output": "log-odds"}, "output 'log-odds' must be one of probability, logit, log_odds"),
        ({"label": 1, "dtype": "int8"}, "dtype 'int8' must be float32"),
        ({"label": 1, "batch_size": 0}, "batch_size 0 and max_length None must be at least 1"),
        ({}, "args must give label"),
    ],
)
def test_wrong_options_are_refused(folder, args, message):
    with pytest.raises(RewardError, match=message):
        RewardSum.from_specs([RewardSpec(path="classifier", args={"path": folder, **args})])


@pytest.mark.parametrize(("pad", "found"), [("<new>", r"'<new>' \(10\)"), (None, r"None \(None\)")])
def test_a_pad_token_that_the_model_does_not_know_is_refused(folder, pad, found):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.eos_token = pad, None
    tokenizer.save_pretrained(folder)
    with pytest.raises(RewardError, match=f"has the pad token {found}, none of the 10 tokens that the model knows"):
        RewardSum.from_specs([RewardSpec(path="classifier", args={"path": folder, "label": 1})])


def test_a_regression_has_outputs_and_no_probabilities(tmp_path):
    folder = write_classifier(tmp_path / "c", problem_type="regression")
    with pytest.raises(RewardError, match="is a regression, whose outputs are no probability; set output: logit"):
        RewardSum.from_specs([RewardSpec(path="classifier", args={"path": folder, "label": 1})])
    found, _ = Classifier(folder, 1, output="logit").scores(TEXTS[:1])
    assert found == pytest.approx([logits_of(folder, TEXTS[0])[1]], abs=1e-5)


def test_a_model_with_one_label_is_a_reward_model(tmp_path):
    config = DistilBertConfig(dim=16, hidden_dim=32, n_layers=1, n_heads=2, vocab_size=10, num_labels=1)
    folder = write_classifier(tmp_path / "c")
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(RewardError, match="has one label; use the reward 'reward_model'"):
        RewardSum.from_specs([RewardSpec(path="classifier", args={"path": folder, "label": 0})])
    with pytest.raises(RewardError, match="does not exist"):
        RewardSum.from_specs([RewardSpec(path="classifier", args={"path": "./nowhere", "label": 0})])


def test_an_empty_text_where_the_tokenizer_adds_nothing(folder):
    """A response may end at once, and the one batch may hold nothing else."""
    file = Path(folder) / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    reward = Classifier(folder, "POSITIVE")
    empty, point = scores(reward, ["", ""]).components["c"], scores(reward, ["."]).components["c"]
    assert empty == pytest.approx(point * 2, abs=1e-6)
