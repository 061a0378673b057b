"""The reward stage on tiny models from disk, and its model as a reward."""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import TEXTS, write_jsonl
from transformers import AutoModelForSequenceClassification

from rlhf.cli import main
from rlhf.config import DataConfig
from rlhf.data.examples import tokenize
from rlhf.data.parsing import parse_row
from rlhf.data.preferences import load_pairs, mismatched, parse_pair, tokenize_pairs
from rlhf.errors import UserError
from rlhf.models.tokenizer import load_tokenizer
from rlhf.report.calibration import accuracies, calibration, measure
from rlhf.rewards import RewardError, RewardSpec, RewardSum, load_reward, reward_inputs
from rlhf.rewards.learned import RewardModel, score_ids


def preference(text: str, number: int) -> dict:
    prompt, chosen = text.split("\n", 1)
    flaw = ("class", "junk")[number % 2]
    rejected = chosen.replace("<button>", "<button class>") if flaw == "class" else chosen + "\n<br/><br/>"
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "flaw": flaw}


ROWS = [preference(text, number) for number, text in enumerate(TEXTS)]


def train(model: Path, folder: Path, *options: str) -> Path:
    data = write_jsonl(folder / "train.jsonl", ROWS[:6])
    held_out = write_jsonl(folder / "held_out.jsonl", ROWS[6:])
    main(
        f"reward --output_dir {folder / 'run'} --model.name_or_path {model} --data.train {data} --data.eval {held_out} "
        "--num_train_epochs 12 --batch_size 6 --learning_rate 0.01 --lora.r 4 --group_by flaw --seed 3".split()
        + list(options)
    )
    return folder / "run"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def run(request, tiny_models, tmp_path_factory) -> Path:
    return train(tiny_models[request.param], tmp_path_factory.mktemp(f"reward_{request.param}"))


@pytest.fixture(scope="module")
def reward(run) -> RewardModel:
    return RewardModel(str(run / "model"))


def jsonl(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def scores(reward: RewardModel, rows: list[dict], side: str) -> list[float]:
    return reward([row["prompt"] for row in rows], [row[side] for row in rows])


def test_it_learns_and_reports(run, reward):
    metrics = jsonl(run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 13))
    assert metrics[0]["reward/loss"] == pytest.approx(math.log(2), abs=0.5)
    assert metrics[-1]["reward/loss"] < 0.5 * metrics[0]["reward/loss"]
    assert metrics[-1]["reward/accuracy"] == 1.0
    summary = json.loads((run / "summary.json").read_text())
    margins = [a - b for a, b in zip(*(scores(reward, ROWS[6:], side) for side in ("chosen", "rejected")), strict=True)]
    std = summary["normalization"]["std"]
    assert summary["accuracy"] == sum(margin > 0 for margin in margins) / 2
    assert summary["margin"] == pytest.approx(statistics.fmean(margins) * std, rel=1e-4)
    assert summary["accuracy_by"].keys() == {"class", "junk"}
    for plot in ("calibration.png", "margins.png"):
        assert (run / plot).stat().st_size > 10_000


def test_scores_of_the_reference_samples_have_mean_0_and_std_1(reward):
    reference = scores(reward, ROWS[:6], "chosen") + scores(reward, ROWS[:6], "rejected")
    assert statistics.fmean(reference) == pytest.approx(0, abs=1e-5)
    assert statistics.pstdev(reference) == pytest.approx(1, abs=1e-5)


def test_the_folder_is_a_plain_merged_model(run):
    folder = run / "model"
    assert {file.suffix for file in folder.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert not [name for name in model.state_dict() if "lora" in name]
    assert model.config.pad_token_id == load_tokenizer(str(folder)).pad_token_id


def test_a_score_is_the_head_at_the_last_token_and_padding_does_not_matter(run, reward):
    """By hand: trunk and head on one sequence without padding, normalized with the constants in the file."""
    row = ROWS[0]
    tokenizer = load_tokenizer(str(run / "model"))
    text = f"{row['prompt']}{row['chosen']}{tokenizer.eos_token}"
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    with torch.no_grad():
        hidden = model.base_model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        raw = float(hidden[0, -1] @ model.score.weight[0])
    settings = json.loads((run / "model" / "reward_model.json").read_text())
    by_hand = (raw - settings["mean"]) / settings["std"]
    long = {"prompt": row["prompt"], "chosen": "x " * 20}
    assert scores(reward, [row], "chosen")[0] == pytest.approx(by_hand, abs=1e-4)
    assert scores(reward, [long, row, long], "chosen")[1] == pytest.approx(by_hand, abs=1e-4)


def test_text_that_looks_like_padding_or_eos_does_not_end_the_sequence(reward):
    tokenizer = reward.tokenizer
    for token in (tokenizer.pad_token, tokenizer.eos_token):
        ids = reward.encode("Show a button", f"a{token}b")
        assert ids.count(tokenizer.eos_token_id) == 1
        assert tokenizer.pad_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).endswith(f"a{token}b")


def test_a_finished_run_is_not_repeated(run, tiny_models, capsys):
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train(tiny_models["gpt2" if "gpt2" in str(run) else "llama"], run.parent)
    assert files == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert "accuracy: junk" in capsys.readouterr().out


def test_a_seed_fixes_head_adapters_and_order(tiny_models, tmp_path):
    weights = []
    for name, seed in (("first", "5"), ("second", "5"), ("third", "6")):
        (tmp_path / name).mkdir()
        folder = train(tiny_models["gpt2"], tmp_path / name, "--num_train_epochs", "1", "--seed", seed)
        weights.append(AutoModelForSequenceClassification.from_pretrained(folder / "model").state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["score.weight"], weights[2]["score.weight"])


def test_adapters_leave_the_embeddings_alone_and_training_without_them_moves_all_weights(tiny_models, tmp_path):
    before = AutoModelForSequenceClassification.from_pretrained(tiny_models["gpt2"], num_labels=1).state_dict()
    moved = {}
    for name, options in (("lora", ()), ("full", ("--lora", "null"))):
        (tmp_path / name).mkdir()
        run = train(tiny_models["gpt2"], tmp_path / name, "--num_train_epochs", "2", *options)
        after = AutoModelForSequenceClassification.from_pretrained(run / "model").state_dict()
        moved[name] = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert "score.weight" in moved["lora"]
    assert not [key for key in moved["lora"] if "wte" in key or "ln" in key]
    no_gradient = {"transformer.ln_f.bias"}  # it adds the same to both scores of a pair: what moves it is rounding
    assert moved["full"] | no_gradient == before.keys()


def test_the_llama_config_on_a_small_model(tiny_models, tmp_path):
    """bfloat16, activation checkpointing and a system prompt, as configs/reward/react_llama.yaml has them."""
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    main(
        f"reward --config configs/reward/react_llama.yaml --model.name_or_path {tiny_models['llama']} "
        f"--output_dir {tmp_path / 'run'} --data.train {data} --data.eval {data} --batch_size 4 --micro_batch_size 2 "
        "--data.max_completion_tokens 60 --learning_rate 0.01".split()
    )
    reward = RewardModel(str(tmp_path / "run" / "model"))
    assert reward.settings is not None
    assert reward.settings.system_prompt == "You write React components in TypeScript."
    assert reward.tokenizer.decode(reward.encode("Hi", "Ho")).startswith(reward.settings.system_prompt + "\nHi\nHo")
    assert reward.model.dtype == torch.bfloat16
    losses = [row["reward/loss"] for row in jsonl(tmp_path / "run" / "metrics.jsonl")]
    assert len(losses) == 6  # 8 pairs and 4 mismatched ones, twice, 4 at a time
    assert all(math.isfinite(loss) for loss in losses)


# --- as a reward -----------------------------------------------------------------------------------------------------


def test_score_stage_and_explain(run, reward, tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row[side]} for row in ROWS[:2] for side in ("chosen", "rejected")]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    spec = json.dumps([{"path": "reward_model", "args": {"path": str(run / "model")}}])
    main(["score", "--input", source, "--output", str(tmp_path / "out.jsonl"), "--rewards", spec])
    scored = [row["rewards"]["reward_model"] for row in jsonl(tmp_path / "out.jsonl")]
    assert scored == pytest.approx(reward([r["prompt"] for r in rows], [r["completion"] for r in rows]), abs=1e-5)
    assert scored[0] > scored[1]
    assert scored[2] > scored[3]
    words = reward.explain(rows[0]["prompt"], rows[0]["completion"])
    assert f"{abs(scored[0]):.2f} standard deviations" in words
    assert "the mean of the chosen and rejected training texts" in words


@pytest.mark.parametrize("kind", ["text", "a user turn", "several turns"])
def test_training_score_and_ppo_give_one_text_one_score(tiny_models, tmp_path, kind):
    """The score of the tokens that were trained on, of a row of a file, and of a prompt with a response in PPO."""
    hi, ho = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    rows: list[dict] = [dict(row) for row in ROWS]
    if kind == "several turns":
        rows = [{**row, "prompt": [hi, ho, {"role": "user", "content": row["prompt"]}]} for row in ROWS]
    options = {"text": [], "a user turn": ["--data.as_chat", "true"], "several turns": ["--data.system_prompt", "Be."]}
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    main(
        f"reward --output_dir {tmp_path / 'run'} --model.name_or_path {tiny_models['llama']} --data.train {source} "
        f"--data.eval {source} --num_train_epochs 1 --batch_size 8".split()
        + options[kind]
    )
    data = DataConfig(as_chat=kind == "a user turn", system_prompt="Be." if kind == "several turns" else None)
    reward = RewardModel(str(tmp_path / "run" / "model"))
    tokenizer, settings = load_tokenizer(str(tiny_models["llama"])), reward.settings
    assert settings is not None
    [trained] = tokenize_pairs([parse_pair(rows[0], "row")], tokenizer, data, 96)
    [raw] = score_ids(reward.model, [trained.chosen_ids], 1)
    in_training = (raw - settings.mean) / settings.std

    file = write_jsonl(tmp_path / "in.jsonl", [{"prompt": rows[0]["prompt"], "completion": rows[0]["chosen"]}])
    spec = json.dumps([{"path": "reward_model", "args": {"path": str(tmp_path / "run" / "model")}}])
    main(["score", "--input", file, "--output", str(tmp_path / "out.jsonl"), "--rewards", spec])
    [scored] = jsonl(tmp_path / "out.jsonl")
    assert scored["reward"] == pytest.approx(in_training, abs=1e-5)
    assert scored["prompt"] == rows[0]["prompt"]

    [seen] = tokenize([parse_row({"prompt": rows[0]["prompt"]}, "row")], tokenizer, data, 96)
    prompts, completions, _ = reward_inputs([seen.example], [rows[0]["chosen"]])
    assert reward(prompts, completions) == [pytest.approx(in_training, abs=1e-5)]


def test_ppo_trains_on_it(run, tiny_models, pairs, tmp_path):
    spec = [{"path": "reward_model", "weight": 0.5, "args": {"path": str(run / "model")}}, {"path": "react_heuristic"}]
    options = (
        f"ppo --output_dir {tmp_path / 'ppo'} --model.name_or_path {tiny_models['llama']} --data.train {pairs} "
        "--sampling.max_new_tokens 8 --num_updates 1 --batch_size 4 --mini_batch_size 4 --micro_batch_size 4"
    )
    main([*options.split(), "--rewards", json.dumps(spec)])
    [row] = jsonl(tmp_path / "ppo" / "metrics.jsonl")
    total = 0.5 * row["reward/reward_model"] + row["reward/react_heuristic"]
    assert row["objective/score"] == pytest.approx(total, abs=1e-5)


def test_any_sequence_classifier_gives_its_raw_score(tiny_models, tmp_path):
    """Without the file of settings: the conversation in the model's own template, not normalized."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_models["llama"], num_labels=1)
    model.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    tokenizer.save_pretrained(tmp_path)
    reward = RewardModel(str(tmp_path))
    ids = tokenizer(f"Hi\nHo{tokenizer.eos_token}", return_tensors="pt")["input_ids"]
    assert reward(["Hi"], ["Ho"]) == pytest.approx([float(model(input_ids=ids).logits.detach())], abs=1e-5)
    assert "not normalized" in reward.explain("Hi", "Ho")


@pytest.mark.parametrize("config_pad", [None, -1, 1, 5])
@pytest.mark.parametrize("tokenizer_pad", [None, "<|eos|>", "<|new|>"])
def test_a_score_in_a_batch_is_that_of_the_row_alone(tiny_models, tmp_path, config_pad, tokenizer_pad):
    """Whatever model and tokenizer call padding, EOS (1) included: transformers alone, unpadded, is what counts."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_models["llama"], num_labels=1).eval()
    known = None if config_pad == -1 else config_pad  # no token: what a config of the first Llama says
    model.config.pad_token_id = config_pad
    model.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    tokenizer.pad_token = tokenizer_pad
    tokenizer.save_pretrained(tmp_path)
    rows = [tokenizer(f"Hi\n{said}{tokenizer.eos_token}")["input_ids"] for said in ("Ho", "Show a button")]
    model.config.pad_token_id = known
    with torch.no_grad():
        expected = [float(model(input_ids=torch.tensor([row])).logits) for row in rows]
    reward = RewardModel(str(tmp_path))
    assert reward(["Hi", "Hi"], ["Ho", "Show a button"]) == pytest.approx(expected, abs=1e-5)
    assert reward.model.config.pad_token_id == config_pad


def test_a_model_that_is_none_is_refused_in_one_line(tiny_models, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(tiny_models["gpt2"], num_labels=2).save_pretrained(tmp_path)
    load_tokenizer(str(tiny_models["gpt2"])).save_pretrained(tmp_path)
    for path, message in ((str(tmp_path), "has 2 labels; a reward model has 1"), ("./nowhere", "does not exist")):
        with pytest.raises(RewardError, match=message) as caught:
            load_reward(RewardSpec(path="reward_model", args={"path": path}))
        assert "\n" not in str(caught.value)


def test_a_text_beyond_the_context_is_named(reward):
    rewards = RewardSum.from_specs([RewardSpec(path="length", args={"maximum": 10})])
    rewards = RewardSum([*rewards.rewards, type(rewards.rewards[0])("model", reward)])
    with pytest.raises(RewardError, match=r"reward 'model' raised ValueError: .* tokens, .* takes 96 \(sample 1:"):
        rewards(["p", "p"], ["short", "x y " * 80], {})


def test_the_module_loads_no_library_before_a_model_is_built():
    code = "import sys, rlhf.rewards.learned\nprint({'torch', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- preference data -------------------------------------------------------------------------------------------------


def test_all_formats_mean_the_same():
    user, good, bad = ({"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Ho"), ("assistant", "No")))
    for row in (
        {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"chosen": [user, good], "rejected": [user, bad]},
    ):
        chosen, rejected = parse_pair({**row, "level": 2}, "row")
        assert (chosen.prompt, chosen.completion, rejected.completion) == ("Hi", "Ho", "No")
        assert chosen.turns == rejected.turns
        assert chosen.columns["level"] == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "row 2: rejected is missing or empty"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "row 2: chosen is missing or empty"),
        ({"chosen": "a", "rejected": "b"}, "row 2: prompt is missing or empty"),
        ({"prompt": "a", "chosen": 7, "rejected": "b"}, "row 2: chosen is int"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "row 2: chosen and rejected are equal"),
        (["a"], "row 2: the row is list"),
        (
            {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]},
            "row 2: chosen and rejected must share every turn but the last",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path, capsys, row, message):
    file = write_jsonl(tmp_path / "rows.jsonl", [ROWS[0], row])
    with pytest.raises(UserError, match=rf"rows\.jsonl {message}"):
        load_pairs(file, "train")


def test_tokens_are_those_of_sft_and_long_pairs_are_left_out(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    long = {"prompt": "a", "chosen": "b", "rejected": "c " * 30}
    pairs = [parse_pair(row, "row") for row in (ROWS[0], long)]
    data = DataConfig(train="x", system_prompt="You write React.", max_completion_tokens=40)
    [pair] = tokenize_pairs(pairs, tokenizer, data, 96)
    assert tokenizer.decode(pair.chosen_ids) == f"You write React.\n{ROWS[0]['prompt']}\n{ROWS[0]['chosen']}<|eos|>"
    assert tokenizer.decode(pair.rejected_ids).endswith(ROWS[0]["rejected"] + "<|eos|>")
    assert pair.columns["flaw"] == "class"


def test_mismatched_pairs_set_a_completion_against_that_of_another_prompt():
    pairs = [parse_pair(row, str(number)) for number, row in enumerate(ROWS)]
    made = mismatched(pairs, 16, seed=0)
    assert len(made) == 16
    chosen_of = {row["prompt"]: row["chosen"] for row in ROWS}
    for chosen, rejected in made:
        assert chosen.completion == chosen_of[chosen.prompt]
        assert rejected.given == chosen.given
        assert rejected.completion in set(chosen_of.values()) - {chosen.completion}
    assert mismatched(pairs[:1], 3, seed=0) == []


# --- what is measured ------------------------------------------------------------------------------------------------


def test_measures_by_hand():
    sure = math.log(3)  # sigmoid is .75
    margins = [sure, sure, sure, -sure]
    found = measure(margins)
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx((-3 * math.log(0.75) - math.log(0.25)) / 4)
    assert found["calibration_error"] == pytest.approx(0.0)
    assert calibration(margins) == [(pytest.approx(0.75), 0.75, 4)]
    assert measure([50.0, -50.0])["calibration_error"] == pytest.approx(0.5)
    assert measure([0.0])["accuracy"] == 0.0


def test_accuracy_by_a_column(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    pairs = tokenize_pairs([parse_pair(row, "row") for row in ROWS[:4]], tokenizer, DataConfig(train="x"), 96)
    assert accuracies([1.0, 1.0, -1.0, 1.0], pairs, "flaw") == {"class": 0.5, "junk": 1.0}
    assert accuracies([1.0] * 4, pairs, None) == {}


def test_config_mistakes_get_one_line(tiny_models, tmp_path, capsys):
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    cases = (
        ([f"--model.name_or_path={tiny_models['gpt2']}"], "data.eval is not set"),
        ([f"--data.eval={data}", "--model.dtype=float32"], "model.name_or_path is not set"),
        (
            [f"--data.eval={data}", f"--model.name_or_path={tiny_models['gpt2']}", "--group_by=level"],
            "group_by is 'level', but the held-out rows have no such column",
        ),
    )
    for number, (options, message) in enumerate(cases):
        with pytest.raises(SystemExit) as caught:
            main([*f"reward --output_dir {tmp_path / str(number)} --data.train {data}".split(), *options])
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert message in error.splitlines()[-1]
