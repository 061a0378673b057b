"""The command line: `rlhf STAGE [FILE.yaml] [--key value ...]`.

Only the chosen stage is imported, after its configuration has been read, so that `--help` and mistakes are fast.
"""

import difflib
import importlib
import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from rlhf import __version__
from rlhf.config.command_line import parse
from rlhf.config.secrets import mask_text
from rlhf.errors import Interrupted, OtherRankError, RewardError, UserError, visible
from rlhf.parallel.launch import end_with_launcher, let_others_speak, rank, require_one_process, said_once
from rlhf.parallel.waiting import wait_beside_others


class Stage(NamedTuple):
    """A subcommand: its configuration class in rlhf.config, the function that runs it, and a line of help.

    `first` is the option whose value may come first without its name: `rlhf fetch smollm2`.
    """

    config: str
    run: str
    help: str
    first: str | None = None

    @property
    def config_class(self) -> type[Any]:
        """The class that `config` names."""
        config_class: type[Any] = getattr(importlib.import_module("rlhf.config"), self.config)
        return config_class


STAGES = {
    "pipeline": Stage(
        "PipelineConfig", "rlhf.stages.pipeline:run_pipeline", "SFT, evaluation, PPO, evaluation, summary"
    ),
    "fetch": Stage(
        "FetchConfig", "rlhf.stages.fetch:run_fetch", "a small chat model to begin with: rlhf fetch smollm2", "model"
    ),
    "sft": Stage("SFTConfig", "rlhf.stages.sft:run_sft", "supervised fine-tuning on prompt/completion pairs"),
    "reward": Stage("RewardModelConfig", "rlhf.stages.reward_model:run_reward", "a reward model from preference pairs"),
    "ppo": Stage("PPOConfig", "rlhf.stages.ppo:run_ppo", "proximal policy optimization against rewards"),
    "doctor": Stage("PPOConfig", "rlhf.doctor.stage:run_doctor", "checks whether a PPO run is worth starting"),
    "evaluate": Stage("EvaluateConfig", "rlhf.stages.evaluate:main", "sample on held-out prompts and measure"),
    "generate": Stage("GenerateConfig", "rlhf.stages.generate:run_generate", "completions for prompts"),
    "play": Stage(
        "PlayConfig", "rlhf.stages.play:run_play", "an environment in the terminal, played by you or a model"
    ),
    "score": Stage("ScoreConfig", "rlhf.stages.score:run_score", "every reward component for a file of completions"),
    "setup-render": Stage(
        "SetupRenderConfig", "rlhf.stages.setup_render:run_setup_render", "React, for the rewards that render (by npm)"
    ),
}
SENDS_NOTHING = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of huggingface_hub, transformers, datasets and TRL
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers would ask a service to convert a hub model
    "WANDB_ERROR_REPORTING": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
ON_SEVERAL_PROCESSES = ("sft", "reward", "ppo")
REPORT_HELP = "one HTML page and PNGs from run folders: rlhf report RUN [RUN ...]"
TOY_HELP = "bandits, training dynamics and a tiny language model on the same maths"
COMMANDS = {name: stage.help for name, stage in STAGES.items()} | {"report": REPORT_HELP, "toy": TOY_HELP}
"""Every command, with a line of help."""
COMPLETION = "--print_shtab"
MEANT = {"train": "ppo", "eval": "evaluate", "reward_model": "reward", "sample": "generate", "chat": "generate"}


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand. A user's mistake ends with one line on standard error and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    send_nothing_unasked()
    name, *rest = argv or ["help"]
    try:
        dispatch(name, rest)
        sys.stdout.flush()
    except OtherRankError:
        let_others_speak()
        sys.exit(2)
    except (UserError, RewardError) as error:
        sys.exit(_fail(name, str(error)))
    except Interrupted as stop:
        if rank() == 0:
            print(f"rlhf {name}: {stop}")
    except KeyboardInterrupt:
        sys.exit(_fail(name, "interrupted", status=130))
    except BrokenPipeError:
        end_if_nobody_reads()
        raise


def end_if_nobody_reads() -> None:
    """Exit like other programs do whose reader has left (`rlhf ppo --help | head`); return if that is not so."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail once more at exit
        sys.exit(128 + signal.SIGPIPE)


def dispatch(name: str, argv: list[str]) -> None:
    """Run the subcommand with that name; raises UserError if there is none, or not for several processes."""
    if name in ("-h", "--help", "help"):
        print(overview())
        return
    if "--version" in (name, *argv[:1]):
        print(f"rlhf {__version__}")
        return
    with said_once():
        if name not in (*COMMANDS, COMPLETION):
            raise UserError(f"unknown command {name!r}; {which_command(name)}")
        if name not in ON_SEVERAL_PROCESSES:
            require_one_process(name)
    if name == COMPLETION:
        print(completion(argv[0] if argv else "bash"))
    elif name == "toy":
        importlib.import_module("rlhf.toy.cli").main(argv)
    elif name == "report":
        importlib.import_module("rlhf.report.write").main(argv)
    else:
        run_stage(name, argv)


def run_stage(name: str, argv: list[str]) -> None:
    """Read the configuration of a stage from `--config` and the command line, then run it."""
    stage = STAGES[name]
    with said_once(), warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", FutureWarning)
        if stage.first and argv and not argv[0].startswith("-"):
            argv = [f"--{stage.first}", *argv]
        config = parse(stage.config_class, argv, f"rlhf {name}", stage.help)
    for notice in dict.fromkeys(str(warning.message) for warning in notices) if rank() == 0 else ():
        print(f"rlhf {name}: {visible(mask_text(notice))}", file=sys.stderr)
    end_with_launcher()
    wait_beside_others()
    quiet_libraries()
    spare_a_core()
    module, function = stage.run.split(":")
    run: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    run(config)


def completion(shell: str) -> str:
    """What `rlhf --print_shtab SHELL` prints."""
    from rlhf.config.completion import script

    toys = importlib.import_module("rlhf.toy.cli").TOYS
    stages = {name: stage.config_class for name, stage in STAGES.items()}
    return script(shell, stages, {name: config_class for name, (_, config_class) in toys.items()})


def which_command(word: str) -> str:
    """What to type instead of a word that is no command."""
    if word.startswith("-") or word.endswith((".yaml", ".yml")):
        return f"a command comes first, as in rlhf ppo {word}"
    near = MEANT.get(word) or next(iter(difflib.get_close_matches(word, COMMANDS, n=1)), None)
    return f"choose one of {', '.join(COMMANDS)}" + (f"; did you mean {near}?" if near else "")


def overview() -> str:
    """What `rlhf --help` prints."""
    lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "PPO fine-tuning of language models.",
            "",
            "usage: rlhf COMMAND [FILE.yaml] [--key value ...]",
            "       rlhf COMMAND --help        every setting of a command, with its default",
            "       rlhf --version",
            "       rlhf --print_shtab SHELL   completion for bash, zsh or tcsh",
            "",
            *lines,
        ]
    )


def send_nothing_unasked() -> None:
    """Turn off what libraries send by themselves (docs/reference/security.md); it counts before they are imported."""
    for name, value in SENDS_NOTHING.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silence banners and notices that tell our users nothing; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.disable_progress_bar()


def spare_a_core() -> None:
    """Leave one of four or more cores to the rest of the machine, unless OMP_NUM_THREADS says otherwise.

    Torch's threads wait for the slowest of them after every operation: with a thread on each core, one neighbor that
    gets busy later than `wait_beside_others` looked made a training step more than ten times slower.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 4 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(cores - 1)


def _fail(command: str, message: str, status: int = 2) -> int:
    print(visible(mask_text(f"rlhf {command}: error: {message}")), file=sys.stderr)
    return status
