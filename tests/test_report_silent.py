"""What once went unsaid: runs that diverged and looked healthy, settings that were not those of the run."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import ppo_rows, report_of, write_run
from rich.console import Console
from tiny_data import write_jsonl
from tiny_runs import make_config

from rlhf.cli import main
from rlhf.config import EnvironmentSpec, ModelConfig, ScratchModel, WatchConfig
from rlhf.doctor import lengths, memory
from rlhf.doctor.check import failure
from rlhf.doctor.examination import examine
from rlhf.doctor.stage import table
from rlhf.doctor.trial import build_trial_trainer, training_prompts
from rlhf.doctor.update import check_gradient
from rlhf.environments.returns import reward_fn
from rlhf.errors import UserError
from rlhf.report import plots
from rlhf.report.charts import frontier
from rlhf.report.headline import MOST_QUANTITIES, headline
from rlhf.report.marks import marks
from rlhf.report.model_card import ppo_card
from rlhf.report.page import page
from rlhf.report.panels import response_limit
from rlhf.report.write import build_report, default_output
from rlhf.toy.cli import main as toy
from rlhf.watch.symptoms import SYMPTOMS
from rlhf.watch.watch import Watch

ROOT = Path(__file__).parents[1]
NAN, INF = math.nan, math.inf


# The report


def test_a_run_that_diverged_does_not_end_where_it_was_healthy(tmp_path):
    run = write_run(tmp_path / "run", ppo_rows([1.0] * 10 + [NAN] * 10, [2.0] * 10 + [NAN] * 10))
    groups = report_of(run)
    [score], [kl] = (headline(groups)[1][name] for name in ("objective/score", "objective/kl"))
    assert (score.before, kl.before) == (1.0, 2.0)
    assert math.isnan(score.after)
    assert math.isnan(kl.after)
    assert "<strong>not a number</strong>" in page(groups)
    assert frontier(groups)[0]["series"][0]["y"] == [1] * 10 + [None] * 10


def test_a_mean_is_of_the_updates_that_it_names(tmp_path):
    """Of the last two updates only one has a KL, as where batches are used again; the other two have none."""
    rows = ppo_rows([1.0] * 20, [float(step) for step in range(20)])
    del rows[19]["objective/kl"], rows[0]["objective/kl"], rows[1]["objective/kl"]
    rows[5]["reward/late"] = 7.0
    _, table_of = headline(report_of(write_run(tmp_path / "run", rows)))
    assert table_of["objective/kl"][0].pairs == [(2.5, 18.0)]  # the nearest that have it, and the one that has it
    assert table_of["reward/late"][0].pairs == [(7.0, 7.0)]


@pytest.mark.parametrize("broken", [[NAN, 1.0], [INF, -INF], [INF, 1.0]], ids=str)
def test_seeds_of_which_one_broke_have_a_report(tmp_path, broken):
    rows = [ppo_rows([1.0, score], [0.0, score]) for score in broken]
    runs = [write_run(tmp_path / f"{seed}", rows[seed], seed=seed) for seed in (0, 1)]
    out, *pictures = build_report(runs, tmp_path / "report.html")
    assert len(pictures) == 3
    html = out.read_text(encoding="utf-8")
    tile = html[html.index('class="tiles"') : html.index('class="charts"')]
    assert "<strong>not a number</strong>" in tile
    assert not re.search(r'="-?(nan|inf)', tile)
    [score] = headline(report_of(*runs))[1]["objective/score"]
    assert score.text() == "not a number"


def test_a_run_that_is_named_twice_counts_once(tmp_path, capsys):
    run = write_run(tmp_path / "run", ppo_rows([1.0], [0.0]), seed=0)
    main(["report", str(run), f"{run}/../run"])
    output = capsys.readouterr()
    assert output.err == f"left out: {run}/../run names the run {run} again\n"
    assert output.out.splitlines()[0] == f"{run}/report.html"
    html = build_report([run, run], tmp_path / "again.html")[0].read_text(encoding="utf-8")
    assert "1 run ·" in html
    assert capsys.readouterr().err == f"left out: {run} names the run {run} again\n"


def test_what_is_not_shown_is_counted_and_is_none_of_kl_length_and_entropy(tmp_path):
    names = ["objective/kl", "objective/entropy", "response/length", "response/eos_rate"]
    row = {"step": 1, "objective/score": 1.0, **{f"reward/{i}": 1.0 for i in range(20)}, **dict.fromkeys(names, 1.0)}
    groups = report_of(write_run(tmp_path / "run", [row]))
    _, shown = headline(groups)
    assert len(shown) == MOST_QUANTITIES
    assert {"objective/score", *names} <= set(shown)
    assert f"13 more were measured: reward/{MOST_QUANTITIES - 5}, reward/8, " in page(groups)


def test_names_with_dollar_signs_are_drawn(tmp_path):
    rows = ppo_rows([1.0, 2.0], [0.0, 1.0])
    for row in rows:
        row["reward/$\\b$"] = 1.0  # no formula of matplotlib's
    plots.plot_reward_and_kl(write_run(tmp_path / "run", rows), tmp_path / "plot.png", 1)
    assert (tmp_path / "plot.png").is_file()


def test_every_reward_is_drawn(tmp_path, monkeypatch):
    figure, axes = plots.subplots(1, 2, 4, 2)
    monkeypatch.setattr(plots, "subplots", lambda *size: (figure, axes))
    rows = ppo_rows([1.0, 2.0], [0.0, 1.0])
    rows[1]["reward/late"] = 1.0
    plots.plot_reward_and_kl(write_run(tmp_path / "run", rows), tmp_path / "plot.png", 0)
    assert [line.get_label() for line in axes[0, 0].lines] == ["score (weighted sum)", "gold", "late"]


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path, capsys):
    run = write_run(tmp_path / "run", ppo_rows([1.0], [0.0]))
    plots.plot_reward_and_kl(run, tmp_path / "missing" / "plot.png", 0)
    said = capsys.readouterr().err
    assert said.startswith(f"not drawn: {tmp_path}/missing/plot.png (FileNotFoundError")
    assert said.count("\n") == 1


@pytest.mark.parametrize("advantage", ["rloo", "group_relative", "reward_per_token", "gae"])
def test_a_card_has_no_critic_where_there_was_none(tiny_models, pairs, advantage):
    config = make_config(tiny_models["gpt2"], pairs, advantage=advantage)
    card = ppo_card(config, 4, [{"step": 1, "objective/score": 1.0}], [])
    said = [words in card for words in ("critic", "value head", "lambda", "gamma")]
    assert said == [advantage == "gae"] * 4
    assert f"| advantage | {advantage}" in card


def test_a_comparison_is_not_written_over_the_report_of_a_run(tmp_path):
    folder = tmp_path / "runs"
    for stage in ("sft", "ppo"):
        write_run(folder / "p" / stage, ppo_rows([1.0], [0.0]))
    both = [folder / "p" / "sft", folder / "p" / "ppo"]
    assert default_output(both) == folder / "p" / "report.html"
    (folder / "p" / "config.yaml").write_text("seed: 0\n")
    assert default_output(both) == folder / "report.html"
    assert default_output([folder / "p"]) == folder / "p" / "report.html"


# The watch


def test_the_limit_of_episodes_is_named_as_it_is_set():
    config = {"sampling": {"max_new_tokens": 24}, "environment": {"max_turns": 4}}
    assert response_limit(config) == ("max_turns x max_new_tokens", 96.0)
    assert response_limit(config | {"environment": None}) == ("max_new_tokens", 24.0)
    assert response_limit({}) is None
    for of_episodes, words in [
        (False, "at sampling.max_new_tokens 96,"),
        (True, "at environment.max_turns x sampling"),
    ]:
        watch = Watch(WatchConfig(), None, 96, of_episodes)
        rows = [{"response/length": length, "response/eos_rate": 0.5} for length in [10.0] * 3 + [95.0] * 6]
        [message] = [found.message for step, row in enumerate(rows) for found in watch.check(step, row)]
        assert words in message


def test_what_is_not_finite_is_reported_once(tmp_path):
    healthy = {"objective/score": 1.0, "objective/kl": 2.0, "objective/entropy": 3.0}
    watch = Watch(WatchConfig(), None, 96)
    assert watch.check(1, healthy) == watch.check(2, {"objective/score": 1.0}) == []
    assert watch.check(3, healthy | {"objective/kl": NAN, "policy/warmup": 1.0}) == []
    [finding] = watch.check(4, healthy | {"objective/kl": NAN, "objective/entropy": -INF})
    assert finding.name == "not_finite"
    assert finding.message.startswith("update 4: objective/kl is nan and objective/entropy is -inf: ")
    assert watch.check(5, healthy | {"objective/score": INF}) == []
    assert "not_finite" not in SYMPTOMS  # which judge values that are
    run = write_run(tmp_path / "run", ppo_rows([1.0], [0.0]))
    write_jsonl(run / "warnings.jsonl", [{"step": 4, "name": finding.name, "message": finding.message}])
    assert [mark.label for mark in marks(report_of(run), None)] == ["not finite"]


# The doctor


def test_the_budget_of_an_episode_is_that_of_all_its_turns(tiny_models, pairs):
    checks = []
    for turns in (3, 16):
        environment = EnvironmentSpec(name="talkers.Echo", args={"turns": 3}, max_turns=turns)
        config = make_config(tiny_models["gpt2"], pairs, rewards=None, environment=environment)
        trainer = build_trial_trainer(config, reward_fn(config.rewards, environment))
        checks.append(lengths.check_length_budget(config, trainer, training_prompts(trainer)))
    assert [check.verdict for check in checks] == ["ok", "warning"]
    assert "16 turns of 10 = " in checks[1].found
    assert "full" in checks[1].found


@pytest.mark.parametrize(
    ("options", "copies", "said"),
    [
        ({}, 1, ""),
        ({"lora": None, "critic": "shared"}, 2, " as policy and reference"),
        ({"lora": None, "critic": "separate"}, 3, " as policy and reference and critic"),
    ],
    ids=str,
)
def test_weights_are_counted_as_often_as_they_are_loaded(tiny_models, pairs, monkeypatch, options, copies, said):
    config = make_config(tiny_models["gpt2"], pairs, **options)
    once = 4 * load_size(tiny_models["gpt2"])
    monkeypatch.setattr(memory, "room", lambda device: copies * once)
    assert memory.check_weights_fit(config) is None
    monkeypatch.setattr(memory, "room", lambda device: copies * once - 1)
    assert f"MiB{said}, this machine" in memory.check_weights_fit(config).found


def load_size(folder: Path) -> int:
    from transformers import AutoModelForCausalLM

    return sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())


def test_a_model_that_is_not_named_is_not_looked_up(pairs, monkeypatch):
    monkeypatch.setattr(memory, "load_pretrained", None)
    config = dataclasses.replace(make_config("gpt2", pairs), model=ModelConfig())
    [check] = examine(config)
    assert check.found == "model.name_or_path is not set; name a hub model or the folder of a trained one"
    scratch = ModelConfig(scratch=ScratchModel())
    [check] = examine(dataclasses.replace(config, model=scratch))
    assert check.found.startswith("model.scratch is for SFT only; ")


def test_names_of_rewards_are_no_markup():
    with (console := Console(width=120)).capture() as shown:
        console.print(table([failure("reward [/b]\x1b", "0 [/i]", "fix [/b]\x1b")]))
    assert "reward [/b]⟨U+001B⟩" in shown.get()
    assert "-> fix [/b]⟨U+001B⟩" in shown.get()


@pytest.mark.parametrize(("norm", "verdict"), [(0.5, "ok"), (0.0, "failure"), (NAN, "failure"), (INF, "failure")])
def test_a_gradient_is_finite_and_not_0(norm, verdict):
    check = check_gradient({"policy/grad_norm": norm})
    assert check.verdict == verdict
    assert f"norm {norm:g}" in check.found


# Toys and scripts


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bandit", "--lr", "-1"], "lr is -1.0; it must be positive and finite"),
        (["tiny-lm", "--value_head_lr", "0"], "value_head_lr is 0.0; it must be positive and finite"),
        (["dynamics", "--clip_range", "-1"], "clip_range is -1.0; it must be positive and finite"),
        (["contextual", "--value_clip_range", "0"], "value_clip_range is 0.0; it must be positive and finite"),
        (["bandit", "--kl_coefs", "[]"], "kl_coefs is []; it must be one or more numbers"),
        (["tiny-lm", "--batch_size", "0"], "batch_size is 0; it must be at least 1"),
    ],
)
def test_settings_of_toys_that_mean_nothing(argv, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        toy(argv)


def test_a_toy_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write into .*file/toy .*; choose another --output_dir$"):
        toy(["bandit", "--output_dir", str(tmp_path / "file" / "toy")])


def test_a_toy_names_its_seeds_and_its_settings(tmp_path, monkeypatch, capsys):
    from rlhf.toy.plots import contextual

    drawn = []
    monkeypatch.setattr(contextual, "save", lambda figure, file: drawn.append(figure.axes[2].get_xticks().tolist()))
    small = ["--seed", "5", "--seeds", "2", "--updates", "2"]
    toy(["contextual", *small, "--output_dir", str(tmp_path / "c")])
    assert drawn == [[5, 6]]
    toy(["dynamics", *small, "--lr", "0.02", "--output_dir", str(tmp_path / "d")])
    assert "Seed 5, updates 2, lr 0.02:" in capsys.readouterr().out


def test_a_gain_that_is_no_number_is_too_little(tmp_path):
    summary = {"sft": {"reward": 0.1, "react_parses": 0.5}, "ppo": {"reward": 0.5, "react_parses": NAN}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    command = [sys.executable, str(ROOT / "scripts" / "check_gain.py"), str(tmp_path / "summary.json")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout.count("TOO LITTLE")) == (1, 1)


def test_an_environment_beside_takes_any_python3(tmp_path):
    scripts, tools = tmp_path / "scripts", tmp_path / "bin"
    scripts.mkdir()
    tools.mkdir()
    (scripts / "beside.sh").write_bytes((ROOT / "scripts" / "beside.sh").read_bytes())
    (tools / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tools / "python3").chmod(0o755)
    (tools / "dirname").symlink_to("/usr/bin/dirname")
    finished = subprocess.run(
        ["/bin/bash", "-c", f'source "{scripts}/beside.sh" newest'],
        capture_output=True,
        text=True,
        env={"PATH": str(tools)},
    )
    assert finished.stdout == "-m venv .venv-newest\n"
