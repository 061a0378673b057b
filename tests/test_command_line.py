"""What people type first: it works, or one line says what to type instead."""

import subprocess
import sys

import pytest
import yaml

from rlhf import config as configs
from rlhf.cli import COMMANDS, STAGES, main
from rlhf.config.command_line import parse
from rlhf.config.completion import script
from rlhf.config.foreign import NAMES
from rlhf.config.sections import settings
from rlhf.config.unknown import refuse_unknown
from rlhf.errors import UserError

PPO = ["--model", "gpt2", "--data.train", "x.jsonl", "--rewards", "react_heuristic"]


def ppo(*argv: str) -> configs.PPOConfig:
    return parse(configs.PPOConfig, [*PPO, *argv])


def refused(capsys, *argv: str) -> str:
    """The line that a command ends with, without `rlhf STAGE: error: `."""
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    said = capsys.readouterr()
    assert (caught.value.code, said.out, said.err.count("\n")) == (2, "", 1), said
    return said.err.strip().partition(": error: ")[2]


# --- what works

WORKS = [
    (["--model", "gpt2"], lambda c: c.model.name_or_path, "gpt2"),
    (["--model", "{name_or_path: gpt2, dtype: bf16}"], lambda c: c.model.dtype, "bfloat16"),
    (["--rewards", "length"], lambda c: [(r.path, r.weight) for r in c.rewards], [("length", 1.0)]),
    (["--rewards", "[length]"], lambda c: [r.path for r in c.rewards], ["length"]),
    (
        ["--rewards", "[length, {path: react_static, weight: 0.5}]"],
        lambda c: [(r.path, r.weight) for r in c.rewards],
        [("length", 1.0), ("react_static", 0.5)],
    ),
    (["--rewards", "{path: length, weight: 2}"], lambda c: [(r.path, r.weight) for r in c.rewards], [("length", 2.0)]),
    (["--rewards", "length", "--rewards", "repetition"], lambda c: len(c.rewards), 2),
    (["--model.dtype", "bf16"], lambda c: c.model.dtype, "bfloat16"),
    (["--model.dtype", "fp32"], lambda c: c.model.dtype, "float32"),
    (["--model.dtype", "torch.bfloat16"], lambda c: c.model.dtype, "bfloat16"),
    (["--learning-rate", "3e-6"], lambda c: c.learning_rate, 3e-6),
    (["--learning-rate=3e-6"], lambda c: c.learning_rate, 3e-6),
    (["--sampling.max-new-tokens", "7"], lambda c: c.sampling.max_new_tokens, 7),
    (["--tracking.wandb", "false"], lambda c: c.tracking.wandb, "disabled"),
    (["--tracking.wandb", "true"], lambda c: c.tracking.wandb, "auto"),
    (["--tracking.tensorboard"], lambda c: c.tracking.tensorboard, True),
    (["--target_kl", "null"], lambda c: c.target_kl, None),
    (["--max_grad_norm", "inf"], lambda c: c.max_grad_norm, float("inf")),
    (["--batch_size", "32"], lambda c: (c.batch_size, c.mini_batch_size), (32, 32)),
    (["--batch_size", "128"], lambda c: (c.batch_size, c.mini_batch_size, c.micro_batch_size), (128, 64, 16)),
    ([], lambda c: (c.num_updates, c.batch_size, c.mini_batch_size), (100, 64, 64)),
    (["--total_episodes", "640"], lambda c: c.num_updates, 10),
    (["--total_episodes", "641"], lambda c: c.num_updates, 11),
    (["--total_episodes", "100", "--batch_size", "32"], lambda c: c.num_updates, 4),
    (["--seed", "1", "--seed", "2"], lambda c: c.seed, 2),
    (["--sampling.stop", "</s>"], lambda c: c.sampling.stop, ["</s>"]),
    (["--output_dir", "007"], lambda c: c.output_dir, "007"),
    (["--data", "rows.jsonl"], lambda c: c.data.train, "rows.jsonl"),
    (["--data.columns.prompt", "007"], lambda c: c.data.columns, {"prompt": "007"}),
    (
        ["--environment", "{name: x.Y, args: {turns: 3, cost: 0.1}}", "--environment.args.turns", "1"],
        lambda c: c.environment.args,
        {"turns": 1, "cost": 0.1},
    ),
    (["--data.chat_template_kwargs.a.b", "[1]"], lambda c: c.data.chat_template_kwargs, {"a": {"b": [1]}}),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "read", "value"), WORKS, ids=[" ".join(argv) for argv, *_ in WORKS])
def test_what_works(argv, read, value):
    reset = ["--rewards", "react_heuristic"]
    given = [word for word in PPO if word not in reset] if "--rewards" in argv else PPO
    assert read(parse(configs.PPOConfig, [*given, *argv])) == value


YAML = {
    "model: gpt2\ndata: x.jsonl\nrewards: length": ("gpt2", "x.jsonl", ["length"], "float32"),
    "model: {name_or_path: gpt2, dtype: bf16}\ndata: {train: x.jsonl}\nrewards: [length, {path: repetition}]": (
        "gpt2", "x.jsonl", ["length", "repetition"], "bfloat16",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), YAML.items())
@pytest.mark.parametrize("how", [["-c"], ["--config"], []])
def test_short_forms_in_a_file_and_every_way_to_name_it(tmp_path, text, expected, how):
    file = tmp_path / "my.yaml"
    file.write_text(text + "\ntracking: {wandb: false}\nlr_schedule: constant\n")
    config = parse(configs.PPOConfig, [*how, str(file), "--lr_schedule", "linear"])
    found = (config.model.name_or_path, config.data.train, [r.path for r in config.rewards], config.model.dtype)
    assert found == expected
    assert (config.tracking.wandb, config.lr_schedule) == ("disabled", "linear")


def test_what_is_given_later_is_laid_over_what_was_given_before(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("model: {name_or_path: a, dtype: bfloat16}\nsampling: {stop: [x], temperature: 0.5}\nseed: 3\n")
    config = ppo("-c", str(file), "--model", "b", "--sampling.temperature", "0.7")
    assert (config.model.name_or_path, config.model.dtype) == ("b", "bfloat16")
    assert (config.sampling.stop, config.sampling.temperature, config.seed) == (["x"], 0.7, 3)
    assert ppo("--seed", "1", "-c", str(file)).seed == 3


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("hello there", ["hello there"]),
        ("[a, b]", ["a", "b"]),
        ("[INST] hello: you? [/INST]", ["[INST] hello: you? [/INST]"]),
        ("What is this: {a}?", ["What is this: {a}?"]),
        ("5", ["5"]),
        ("null", ["null"]),
    ],
)
def test_a_prompt_is_a_text(text, prompts):
    assert parse(configs.GenerateConfig, ["--model", "gpt2", "--prompt", text]).prompt == prompts


def test_several_prompts():
    argv = ["--model", "gpt2", "--prompt", "a", "--prompt", "b"]
    assert parse(configs.GenerateConfig, argv).prompt == ["a", "b"]


def test_measuring_and_generating_need_no_training_data():
    argv = ["--model", "gpt2", "--data.eval", "held_out.jsonl"]
    assert parse(configs.EvaluateConfig, [*argv, "--rewards", "length"]).data.eval == "held_out.jsonl"
    assert parse(configs.GenerateConfig, argv).data.eval == "held_out.jsonl"


def test_no_adapters():
    argv = ["--model", "gpt2", "--data.train", "x.jsonl", "--data.eval", "x.jsonl", "--lora", "null"]
    assert parse(configs.RewardModelConfig, argv).lora is None
    assert parse(configs.RewardModelConfig, [*argv, "--lora.r", "4"]).lora == configs.LoraConfig(r=4)


# --- what leads on

REFUSED = {
    "--lr 1": "unknown option --lr: here it is learning_rate",
    "--ppo_epochs 3": "unknown option --ppo_epochs: here it is num_ppo_epochs",
    "--per_device_train_batch_size 3": "here it is micro_batch_size",
    "--cliprange 0.2": "here it is clip_range",
    "--lam 0.9": "here it is gae_lambda",
    "--init_kl_coef 0.1": "here it is kl_coef",
    "--response_length 10": "here it is sampling.max_new_tokens",
    "--stop_token eos": "here it is sampling.stop",
    "--gradient_accumulation_steps 2": "here it is micro_batch_size",
    "--num_train_epochs 3": "here it is num_updates or total_episodes",
    "--max_steps 3": "here it is num_updates",
    "--logging_steps 3": "here it is tracking.samples (metrics are logged at every step)",
    "--report_to wandb": "here it is tracking.wandb or tracking.tensorboard",
    "--reward_model_path x": "here it is rewards ([{path: reward_model, args: {path: FOLDER}}])",
    "--sft_model_path x": "here it is model.name_or_path",
    "--save_total_limit 3": "did you mean checkpoint.save_total_limit?",
    "--optim adam": "there is no such setting here (the optimizer is AdamW)",
    "--learning_rat 1": "did you mean learning_rate?",
    "--temperature 1": "did you mean sampling.temperature?",
    "--sampling.temprature 1": "did you mean sampling.temperature?",
    "--wandb false": "did you mean tracking.wandb?",
    "--rewards.weight 1": "rewards is a list; give it whole, as in",
    "--lora.r.x 1": "unknown option --lora.r.x; did you mean",
    "--data.columns.prompt.x 1": "unknown option --data.columns.prompt.x; did you mean",
    "--data.columns.prompt": "--data.columns.prompt needs a value behind it",
    "--zzzz 1": "unknown option --zzzz; --help lists every key",
    "--seed": "--seed needs a value behind it",
    "--seed --batch_size 4": "--seed needs a value behind it",
    "--config": "--config needs a file behind it",
    "seed=3": "unexpected 'seed=3'; write --seed 3",
    "nonsense": "unexpected 'nonsense'; options begin with --, and a config file ends in .yaml",
    "-x 1": "unexpected '-x'",
    "nowhere.yaml": "cannot read the config nowhere.yaml (No such file or directory)",
    "--critic none": "PPO without one takes its advantages from the scores",
    "--critic both": "critic is 'both'; it must be one of shared, detached, adapter",
    "--batch_size many": "batch_size is 'many'; it must be a whole number",
    "--batch_size 1.5": "batch_size is 1.5; it must be a whole number",
    "--learning_rate high": "learning_rate is 'high'; it must be a number",
    "--whiten_rewards maybe": "whiten_rewards is 'maybe'; it must be true or false",
    "--target_kl low": "target_kl is 'low'; it must be a number or null",
    "--model.dtype fp16": "model.dtype is 'float16', whose range is too small to train in; it must be one of float32",
    "--model.dtype int8": "model.dtype is 'int8'; it must be one of float32, bfloat16",
    "--lora null": "critic is adapter, but lora is null",
    "--push_to_hub true": "push_to_hub is true; it must be a mapping with keys such as model_id, private or null",
    "--push_to_hub.private true": "push_to_hub.model_id is not set",
    "--tracking.wandb sometimes": "it must be one of auto, online, offline, disabled",
    "--sampling.stop 5 --sampling.temperature hot": "sampling.temperature is 'hot'; it must be a number",
    "--rewards [1]": "rewards[1] is 1; it must be a mapping with keys such as path, weight, name",
    "--num_updates 3 --total_episodes 640": "num_updates is 3, but total_episodes 640 in batches of 64 are 10",
    "--total_episodes 0": "total_episodes is 0; it must be greater than 0",
    "--adaptive_kl_horizon 7": "adaptive_kl_horizon is 7, but adaptive_kl_target is not set",
    "--generation.gpu_memory_utilization 0.9": "which is for a colocated vllm; leave it out",
    "--advantage rloo --num_generations 2 --keep_critic true": "keep_critic is set, but advantage is rloo",
    "--advantage rloo --num_generations 2 --critic branch --critic_layers 2": "critic_layers are set, but advantage is",
    "--advantage rloo --num_generations 2 --value_warmup.max_updates 3": "value_warmup.max_updates is set",
    "--eval_steps 5": "evaluation.every",
    "--adaptive_kl_target 6 --kl_coef 0": "adaptive_kl_target is 6.0, but kl_coef is 0",
    "--adaptive_kl_target 6 --adaptive_kl_horizon 12": "adaptive_kl_horizon is 12, at most a fifth of batch_size 64",
    "--model.dtype auto --lora null --critic shared": "model.dtype is auto, which may be bfloat16,",
    "--mini_batch_size 65": "mini_batch_size 65 is larger than batch_size 64",
}


@pytest.mark.parametrize(("words", "expected"), REFUSED.items())
def test_what_leads_on(capsys, words, expected):
    line = refused(capsys, "ppo", *PPO, *words.split())
    assert expected in line
    assert "<class" not in line


def test_what_is_missing_is_named(capsys):
    assert "data.train is not set; name a file" in refused(capsys, "ppo", "--model", "x", "--rewards", "length")
    assert "rewards is not set; give it in the config file" in refused(capsys, "ppo", "--model", "x", "--data", "x")
    assert "data.eval is not set" in refused(capsys, "evaluate", "--model", "x", "--rewards", "length")
    assert "input is not set" in refused(capsys, "score", "--output", "x", "--rewards", "length")


def test_what_would_replace_its_source_or_repeat_itself_is_named(capsys):
    score = ["score", "--rewards", "length", "--input"]
    assert "output is './a', the file that is read" in refused(capsys, *score, "a", "--output", "./a")
    generate = ["generate", "--model", "x", "--data.eval", "a", "--output"]
    assert "output is 'a', the file that is read" in refused(capsys, *generate, "a")
    trained = ["--model.gradient_checkpointing", "true"]
    assert "nothing is trained here" in refused(capsys, *generate, "b", *trained)
    greedy = ["--num_generations", "2", "--sampling.temperature", "0"]
    same = "num_generations is 2, but with sampling.temperature 0 all responses to a prompt are the same"
    assert same in refused(capsys, *generate, "b", *greedy)
    assert same in refused(capsys, "evaluate", "--model", "x", "--data.eval", "a", "--rewards", "length", *greedy)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("toy", 'expected "toy" to be one of {bandit,contextual,dynamics,tiny-lm,figures}'),
        ("toy nope", "invalid choice: 'nope'"),
        ("toy bandit --nope 3", "unrecognized arguments: --nope 3; rlhf toy --help says more"),
        ("toy bandit --seed many", "seed"),
        ("report", "the following arguments are required: RUN; rlhf report --help says more"),
        ("report x --outptu y", "unrecognized arguments: --outptu y"),
    ],
)
def test_toys_and_reports_say_it_in_one_line_too(capsys, words, expected):
    assert expected in refused(capsys, *words.split())


def test_a_key_in_a_file_is_named_as_it_stands_there(tmp_path, capsys):
    file = tmp_path / "a.yaml"
    file.write_text("sft: {per_device_train_batch_size: 3}\n")
    line = refused(capsys, "pipeline", str(file))
    assert "unknown key 'sft.per_device_train_batch_size': here it is sft.micro_batch_size" in line
    file.write_text("rewards: [{path: length, wieght: 2}]\n")
    assert "unknown key 'rewards[0].wieght'; did you mean weight?" in refused(capsys, "ppo", str(file))


COMMAND_LINES = {
    "pppo": "unknown command 'pppo'; choose one of pipeline",
    "evalute": "did you mean evaluate?",
    "train": "did you mean ppo?",
    "--config": "a command comes first, as in rlhf ppo --config",
    "my.yaml": "a command comes first, as in rlhf ppo my.yaml",
}


@pytest.mark.parametrize(("command", "expected"), COMMAND_LINES.items())
def test_what_is_no_command_leads_to_one(capsys, command, expected):
    assert expected in refused(capsys, command)


def test_every_foreign_name_leads_somewhere():
    """Each target is a setting of some stage, and no stage has the name itself among its own settings of that place."""
    known = {name for stage in STAGES.values() for name in settings(stage.config_class)}
    coming = {"data.name"}  # of the hub subset
    for name, (keys, remark) in NAMES.items():
        assert keys or remark, name
        assert set(keys) <= known | coming, name
    error = refuse_unknown(configs.SFTConfig, "lr", "option --lr")
    assert str(error) == "unknown option --lr: here it is learning_rate"


@pytest.mark.parametrize("argv", [["report", "--out", "x.html", "run"], ["toy", "bandit", "--see", "3"]])
def test_no_command_guesses_an_abbreviated_option(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert argv[-2 if argv[0] == "toy" else 1] in capsys.readouterr().err


# --- help, version, completion


def test_version(capsys):
    for argv in (["--version"], ["ppo", "--version"]):
        main(argv)
        assert capsys.readouterr().out == "rlhf 0.1.0\n"


@pytest.mark.parametrize("stage", STAGES)
def test_help_has_every_key_with_default_and_sentence_in_80_columns(stage, capsys):
    with pytest.raises(SystemExit) as caught:
        main([stage, "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for name, setting in settings(STAGES[stage].config_class).items():
        if not any(other.startswith(f"{name}.") for other in settings(STAGES[stage].config_class)):
            entry = text.partition(f" --{name} ")[2].partition(" --")[0]
            assert entry, name
            assert len(entry.split()) >= 2, f"{name} has no sentence"
            assert setting.section


@pytest.mark.parametrize("command", ["ppo --help", "--help", "--print_shtab bash"])
def test_a_reader_that_leaves_is_no_error(command):
    line = f"{sys.executable} -m rlhf {command} | true"
    done = subprocess.run(["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


def test_help_is_grouped_and_shows_choices(capsys):
    with pytest.raises(SystemExit):
        main(["ppo", "--help"])
    text = capsys.readouterr().out
    assert "\nsampling: Rollout sampling.\n  --sampling.max_new_tokens 96" in text
    assert "[gae, rloo," in text
    assert "--num_ppo_epochs 4              Passes over each rollout." in text
    assert "--rewards null" in text  # not needed beside an environment
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    assert "--rewards (required)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def completions(tmp_path_factory) -> str:
    pytest.importorskip("shtab")
    stages = {name: stage.config_class for name, stage in STAGES.items()}
    file = tmp_path_factory.mktemp("completion") / "rlhf.bash"
    file.write_text(script("bash", stages, {"bandit": configs.WatchConfig}))
    return str(file)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rlhf ppo --adv", {"--advantage"}),
        ("rlhf ppo --advantage r", {"rloo", "reward_per_token"}),
        ("rlhf s", {"sft", "score", "setup-render"}),
        ("rlhf toy b", {"bandit"}),
        ("rlhf evaluate --model.trust_remote_code t", {"true"}),
    ],
)
def test_bash_completes(completions, words, expected):
    program = (
        f"source {completions}; COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _shtab_rlhf; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == expected


def test_every_shell_and_command_is_known(capsys):
    pytest.importorskip("shtab")
    stages = {name: stage.config_class for name, stage in STAGES.items()}
    for shell in ("zsh", "tcsh"):
        assert all(command in script(shell, stages, {}) for command in COMMANDS)
    assert "--print_shtab is 'fish'; it must be one of bash, zsh, tcsh" in refused(capsys, "--print_shtab", "fish")


def test_without_shtab_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlhf-ppo\[completion\]'"):
        script("bash", {}, {})


def test_a_config_that_a_run_wrote_is_taken_again(tmp_path):
    from rlhf.runs.folder import as_plain

    config = ppo("--total_episodes", "640", "--batch_size", "32", "--lora.r", "4")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(as_plain(config)))
    assert parse(configs.PPOConfig, [str(file)]) == config


@pytest.mark.parametrize(("text", "value"), [("false", False), ("true", True), ("auto", "auto")])
def test_a_switch_that_also_takes_a_word(text, value):
    argv = ["--data.train", "x", "--rewards", "react_heuristic", "--tracking.tensorboard", text]
    assert parse(configs.PPOConfig, argv).tracking.tensorboard == value


@pytest.mark.parametrize(
    ("stage", "given", "said"),
    [
        ("ppo", ["--lora.r", "-1"], r"^lora\.r is -1; it must be greater than 0$"),
        ("ppo", ["--push_to_hub.model_id", ""], r"^push_to_hub\.model_id is ''; "),
        ("ppo", ["--inspect.prompts", "-1"], r"^inspect\.prompts is -1; "),
        ("ppo", ["--value_warmup.max_updates", "-1"], r"^value_warmup\.max_updates is -1; "),
        ("pipeline", ["--sft.batch_size", "-1"], r"^sft\.batch_size is -1; "),
        ("pipeline", ["--sft.lora.r", "-1"], r"^sft\.lora\.r is -1; "),
        ("pipeline", ["--ppo.inspect.every", "0"], r"^ppo\.inspect\.every is 0; "),
        ("pipeline", ["--sft.model.scratch.layers", "1"], r"^sft\.model has both name_or_path '.*' and scratch; "),
    ],
)
def test_what_a_section_refuses_is_said_with_its_whole_name(stage, given, said):
    config = {"ppo": "configs/ppo/react_gpt2.yaml", "pipeline": "configs/quickstart.yaml"}[stage]
    with pytest.raises(UserError, match=said):
        parse(STAGES[stage].config_class, ["--config", config, *given])
