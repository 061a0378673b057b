"""Every command in README.md and docs/ is run by a test, and every block of code; what cannot be run says why.

The three tables name each of them. A command that is new in the documentation is in none, and fails until it is.
"""

import pydoc
import re
import runpy
import shlex
import sys
from fnmatch import fnmatchcase

import pytest
import yaml
from documents import ROOT, blocks, commands, text_of
from readme_example import write_example
from rewards.render_available import needs_render
from tiny_smollm2 import write_smollm2

from rlhf.cli import STAGES, main
from rlhf.config.command_line import parse
from rlhf.config.sections import settings
from rlhf.rewards import RewardSpec, SpanReward, load_reward

MODEL = "--model.scratch.hidden_size 32 --model.scratch.layers 1 --model.scratch.heads 2"
SCRATCH = (
    "--sft.model.scratch.context_length 1200 --sft.model.scratch.hidden_size 32 --sft.model.scratch.layers 1 "
    "--sft.model.scratch.heads 2"
)
PIPELINE = (
    "--sft.num_train_epochs 0.01 --sft.data.max_completion_tokens 800 --ppo.data.max_completion_tokens 800 "
    "--ppo.num_updates 1 --ppo.batch_size 4 --ppo.mini_batch_size 4 --ppo.micro_batch_size 4 "
    "--ppo.sampling.max_new_tokens 8 "
    "--ppo.inspect.prompts 2 --evaluation.prompts 2 --evaluation.num_generations 1"
)
EVALUATE = "--prompts 2 --num_generations 1 --sampling.max_new_tokens 8 --data.max_completion_tokens 800"

# Run here, in this order, with these options besides; a shell pattern stands for several commands.
HERE = {
    "bash scripts/quickstart.sh": PIPELINE,
    "bash scripts/quickstart.sh --config * --seed ? --output_dir runs/seed-?": f"{SCRATCH} {PIPELINE}",
    "python benchmarks/seed_table.py runs/seed-0 runs/seed-1 runs/seed-2": "",
    "rlhf generate --model runs/quickstart --prompt *": "",
    "rlhf evaluate --config configs/evaluate/react_new_families.yaml": EVALUATE,
    "rlhf evaluate --config configs/evaluate/react_new_families.yaml --model.name_or_path *": EVALUATE,
    "rlhf score --input data/react/five.jsonl *": "",
    "rlhf report runs/quickstart": "",
    "rlhf report runs/seed-0 runs/seed-1 runs/seed-2": "",
    "bash scripts/quickstart.sh --ppo.kl_coef 0.2 --output_dir runs/kl-0.2": PIPELINE,
    "rlhf report runs/quickstart runs/kl-0.2 --output penalties.html": "",
    "rlhf doctor my_ppo.yaml": "",
    "rlhf ppo my_ppo.yaml": "",
    "rlhf ppo my_ppo.yaml --model runs/mine --output_dir runs/second": "",
    "rlhf generate --model runs/mine --prompt * --merge_to runs/merged": "--sampling.max_new_tokens 4",
    "rlhf toy bandit": "--seeds 1 --updates 2 --pulls 16",
    "rlhf sft --config configs/sft/react_small.yaml": f"{MODEL} --num_train_epochs 0.01",
    "rlhf reward --config configs/reward/react_small.yaml": "--num_train_epochs 0.01 --data.train preferences.jsonl",
}

# Run by another test.
ELSEWHERE = {
    "rlhf play --environment react_repair": "test_play.py::test_code_of_several_lines_is_a_turn",
    "rlhf play --environment guess_number --model *": "test_play.py::test_a_model_plays",
    "rlhf pipeline configs/environments/*": "test_environment_docs.py::test_the_shipped_config",
    "rlhf toy * --seeds 5": "test_tutorial.py::test_commands_run",
    "rlhf toy tiny-lm": "test_tutorial.py::test_commands_run",
    "rlhf toy figures": "test_tutorial.py::test_commands_run",
    "python benchmarks/ifeval.py runs/mine": "test_ifeval_benchmark.py::test_accuracies_of_a_model",
    "python benchmarks/ifeval.py * --url *": "test_ifeval_benchmark.py::test_accuracies_of_a_server",
    "python benchmarks/bench_ppo.py --*": "test_bench_ppo.py::test_both_sides_do_the_same_work",
    "python tests/reliability/fault_matrix.py *": "test_faults.py::test_survives",
    "accelerate launch *": "test_accelerate_configs.py::test_the_command_at_its_top_launches_what_it_says",
    "rlhf ppo my_ppo.yaml --model.quantization *": "test_quantized.py::test_shipped_config_runs",
    "rlhf ppo my_ppo.yaml --push_to_hub.*": "test_hub.py::test_every_file_arrives_in_a_private_repository",
    "rlhf ppo my_ppo.yaml --tracking.*": "test_wandb.py::test_a_resumed_online_run_goes_on_and_loses_no_row",
    "rlhf ppo --config configs/ppo/react_llama_vllm*.yaml": "test_vllm.py::test_shipped_config_runs",
}

# Not run, and why.
NOT_RUN = {
    "mkdir -p *": "makes a folder",
    "bash scripts/test.sh": "runs the tests, this one included",
    "rlhf fetch smollm2": "downloads a model; tests/test_fetch.py runs it against a folder of wheels and a small hub",
    "pip install -e *": "changes the environment that the tests run in; scripts/setup.sh installs the same project",
    "rlhf setup-render": "downloads from npm; tests/test_setup_render.py runs it wherever npm is there",
    "bash scripts/react_smollm2.sh": "trains for 90 minutes; tests/test_configs.py reads its configs",
    "rlhf * configs/*/react_repair*": "trains for half an hour; tests/test_configs.py reads its configs",
    "rlhf pipeline --config configs/smollm2/instructions.yaml *": "the same",
    "python benchmarks/ifeval.py models/*": "takes half an hour; tests/test_ifeval_benchmark.py has a small model",
    "wandb login": "asks for a key",
    "vllm serve *": "needs a GPU and vLLM; tests/test_vllm.py has a stand-in",
    "python benchmarks/compare_*.py": "a study of an hour or more; tests/test_compare_scripts.py runs its parts",
}

# The test that runs all Python of a page, and fails for a block that it does not know.
PYTHON = {
    "README.md": "test_readme.py::test_the_classic_loop_runs",
    "docs/guide/your-reward.md": "test_docs_commands.py::test_rewards_of_the_docs",
    "docs/how-to/reward-server.md": "test_rewards_remote.py::test_the_server_in_the_docs_runs",
    "docs/how-to/multi-turn.md": "test_environment_docs.py::test_the_example_is_an_environment",
    "docs/reference/python.md": "test_docs_commands.py::test_the_names_of_the_python_page",
    "docs/how-to/change-the-algorithm.md": "test_extending.py::test_every_block_runs",
    "docs/how-to/migrate-from-trl.md": "test_from_trl.py::test_the_loop_and_the_checkpoints_run",
    "docs/guide/ppo-in-five-steps.md": "test_tutorial.py::test_snippets_print_what_they_say",
    "docs/guide/report.md": "test_docs_commands.py::test_commands_run",
    "docs/reference/rewards.md": "test_docs_commands.py::test_rewards_of_the_docs",
}


@pytest.fixture(scope="module")
def documented(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("shell")
    found = [shlex.join(words) for block in blocks("bash") for words in commands(block, folder)]
    return list(dict.fromkeys(found))


def test_every_command_is_in_one_table(documented):
    tables = [*HERE, *ELSEWHERE, *NOT_RUN]
    matches = {command: [pattern for pattern in tables if covers(pattern, command)] for command in documented}
    unknown = [command for command, found in matches.items() if not found]
    assert unknown == [], "commands of the documentation that are in none of HERE, ELSEWHERE and NOT_RUN above"
    assert {command: found for command, found in matches.items() if len(found) > 1} == {}
    stale = [pattern for pattern in tables if not any(covers(pattern, command) for command in documented)]
    assert stale == [], "no command of the documentation is meant by these patterns any more"
    assert len(documented) > 20


def covers(pattern: str, command: str) -> bool:
    """Whether the shell pattern, in which brackets are only brackets, is about the command."""
    return fnmatchcase(command, pattern.replace("[", "[[]"))


def test_tests_that_are_named_exist():
    for name in {*ELSEWHERE.values(), *PYTHON.values()}:
        file, test = name.split("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_every_block_is_of_a_kind_that_is_looked_at():
    assert {block.language for block in blocks()} <= {"bash", "python", "pycon", "yaml", "diff", ""}
    assert {block.page for block in blocks("python", "pycon")} == set(PYTHON)
    output = [line for block in blocks("") for line in block.text.splitlines()]
    not_of_output = re.compile(r"\$ |python |rlhf \w+(?!\w*: )")  # `rlhf ppo: error: ...` is output
    assert [line for line in output if not_of_output.match(line)] == []


@pytest.fixture
def smollm2(tmp_path) -> None:
    write_smollm2(tmp_path)


@needs_render
@pytest.mark.long
@pytest.mark.usefixtures("smollm2")
def test_commands_run(documented, tiny_models, tmp_path, monkeypatch, capsys):
    """As a reader would run them: in one folder, one after the other."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    few = text_of("data/react/preferences.jsonl").splitlines()[:200]
    (tmp_path / "preferences.jsonl").write_text("\n".join(few), encoding="utf-8")
    write_example(tmp_path, tiny_models["gpt2"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)  # that of another page
    for pattern, options in HERE.items():
        for command in documented:
            if covers(pattern, command):
                run(command, shlex.split(options), monkeypatch)
    assert "| kl | 0.000 → " in capsys.readouterr().out  # the table over seeds
    assert len(list(tmp_path.glob("runs/new/[012]-*/evaluation.json"))) == 6
    for file in (
        "quickstart/report.html",
        "report-headline.png",
        "scored.jsonl",
        "reward/model/model.safetensors",
        "merged/config.json",
    ):
        assert (tmp_path / "runs" / file).is_file(), file
    [example] = blocks("python", page="docs/guide/report.md")
    exec(example.text, {})
    assert {page.name for page in tmp_path.glob("*.html")} == {"penalties.html", "report.html"}


def run(command: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A documented command with further options, in this process; what fails says which command it was."""
    program, *arguments = shlex.split(command)
    try:
        if program == "rlhf":
            main([*arguments, *options])
        elif arguments[0] == "scripts/quickstart.sh":
            main(["pipeline", *([] if "--config" in arguments else quickstart()), *arguments[1:], *options])
        else:
            monkeypatch.setattr(sys, "argv", arguments)
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{command}: {error!r}") from error


def quickstart() -> list[str]:
    """What scripts/quickstart.sh starts once everything is installed and fetched."""
    first, _ = re.findall(r'set -- (--config .*) "\$@"$', text_of("scripts/quickstart.sh"), re.MULTILINE)
    return shlex.split(first)


def test_the_names_of_the_python_page():
    """Those that the site shows with their docstrings, and the imports."""
    [imports] = blocks("python", page="docs/reference/python.md")
    exec(imports.text, {})
    shown = re.findall(r"^::: (\S+)$", text_of("docs/reference/python.md"), re.MULTILINE)
    assert len(shown) > 20
    assert [name for name in shown if pydoc.locate(name) is None] == []


def test_rewards_of_the_docs(tmp_path, monkeypatch):
    signature, short_lines, process, _ = blocks("python", page="docs/reference/rewards.md")  # the last has its own test
    [politeness] = blocks("python", page="docs/guide/your-reward.md")
    names: dict = {}
    for block in (signature, short_lines, process, politeness):
        exec(block.text, names)
    assert names["politeness"](["p"] * 2, ["Thank you, please.", "No."]) == [2 / 3, 0.0]
    assert names["no_todo"](["p"] * 2, ["x TODO", "done"])[1] == 0.0
    [todo] = [item for item in names["no_todo"](["p"], ["x TODO"]) if isinstance(item, SpanReward)]
    assert [(span.start, span.end, span.value) for span in todo.spans] == [(2, 6, -0.5)]
    (tmp_path / "rewards_of_the_docs.py").write_text(short_lines.text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    reward = load_reward(RewardSpec(path="rewards_of_the_docs.short_lines", args={"limit": 3}))
    assert reward(prompts=["p"] * 2, completions=["abc\nabcd", ""]) == [0.5, 0.0]


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: f"{block.page}: {block.text.splitlines()[0][:40]}")
def test_configs_are_accepted(block, tmp_path):
    """Each as a part of the config of a run, of PPO where the first line names no other stage."""
    named = re.match(r"#.*rlhf (\w+)", block.text)
    config_class = STAGES[named[1] if named else "ppo"].config_class
    rest = {"model": {"name_or_path": "gpt2"}, "data": {"train": "prompts.jsonl"}, "rewards": [{"path": "length"}]}
    rest = {key: value for key, value in rest.items() if key in settings(config_class)}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(rest | yaml.safe_load(block.text)), encoding="utf-8")
    config = parse(config_class, ["--config", str(file)])
    assert set(yaml.safe_load(block.text)) <= set(vars(config))
