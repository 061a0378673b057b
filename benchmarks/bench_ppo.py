"""How fast is PPO? This library against TRL's PPOTrainer, or minimind, on equal work, and the arithmetic floor.

    python benchmarks/bench_ppo.py --setting a|b|llama|qwen3|ragged [--threads 1]
        [--dtype fp32|bf16] [--critic shared|branch|adapter]
    python benchmarks/bench_ppo.py --setting qwen3 --against minimind --minimind FOLDER    a clone of its repository
    python benchmarks/bench_ppo.py --table FILE [FILE ...]      the Markdown tables of earlier runs (--json)

Model shape, prompts, response tokens, epochs, minibatches and LoRA (r=16) are the same; the model cannot end a response
early. Each side is a process of its own; one update of each in turn, the first of each not counted. With one thread on
a CPU the seconds are processor seconds, else wall seconds. minimind trains all weights; beside it ours does so too, as
a third side. The last line is JSON.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ppo_bench import minimind
from ppo_bench.conclude import ALL_WEIGHTS, MIB, MINIMIND, OURS, OURS_FULL, THEIRS, THEIRS_FP32, conclude
from ppo_bench.floor import gpu_peak, measure_rates
from ppo_bench.model import write_workload
from ppo_bench.report import DIFFERENCES_TO_MINIMIND, describe, differences, machines, ratio_table
from ppo_bench.settings import DTYPES, NAMES, Setting, setting
from ppo_bench.sides import Side, estimate_memory, work
from ppo_bench.turns import elsewhere, started, take_turns


def main() -> None:
    arguments = read_arguments(sys.argv[1:])
    if arguments.table:
        results = [json.loads(file.read_text()) for file in arguments.table]
        print(machines(results), ratio_table(results), *(describe(result) for result in results), sep="\n\n")
        return
    os.environ |= {"OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory(prefix="bench_ppo_") as folder:
        result = compare(arguments, Path(folder))
    print(machines([result]), describe(result), sep="\n")
    if arguments.against == "trl":
        print(differences(arguments.critic))
    if arguments.against == "minimind":
        print(DIFFERENCES_TO_MINIMIND)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def read_arguments(line: list[str]) -> argparse.Namespace:
    """From the command line; minimind is measured where it runs: in float32 on a CPU, on a model of its shape."""
    known = parser()
    given = known.parse_args(line)
    if (given.against == "minimind") != (given.minimind is not None):
        known.error("--against minimind and --minimind FOLDER, a clone of its repository, go together")
    if given.minimind is not None:
        if not (given.minimind / minimind.SCRIPT).is_file():
            known.error(f"--minimind {given.minimind} has no {minimind.SCRIPT}; name a clone of its repository")
        if given.dtype != "fp32" or torch.cuda.is_available():
            known.error("minimind is measured on a CPU, where it always computes in float32: --dtype fp32, no GPU")
        if setting(given.setting, on_gpu=False).architecture != "qwen3":
            known.error(f"--setting {given.setting} is no model of minimind's; use --setting qwen3")
    return given


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=NAMES, default="a")
    parser.add_argument("--against", choices=("trl", "minimind", "nothing"), default="trl")
    parser.add_argument("--minimind", type=Path, help="folder of a clone of github.com/jingyaogong/minimind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--critic", choices=("shared", "branch", "adapter"), default="shared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro_batch", type=int, help="responses per forward pass of the update, on both sides")
    parser.add_argument("--peak_tflops", type=float, help="of the GPU; measured with a large product if not given")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--table", type=Path, nargs="+", help="print tables of such files instead")
    return parser


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the sides in turn; what came of it, as plain data."""
    on_gpu = torch.cuda.is_available()
    chosen = setting(arguments.setting, on_gpu)
    if arguments.micro_batch:
        chosen = replace(chosen, micro_batch=arguments.micro_batch)
    by_processor = arguments.threads == 1 and not on_gpu
    sides = line_up(arguments, chosen, folder)
    for side in sides:
        if not side.workload.exists():
            elsewhere(write_workload, side.setting, side.workload, side.dtype)
    about = {name: getattr(arguments, name) for name in ("setting", "dtype", "threads", "critic", "repeats")}
    about |= {"micro_batch": chosen.micro_batch, "clock": "cpu" if by_processor else "wall", "machine": machine()}
    if arguments.minimind:
        about["minimind"] = minimind.commit(arguments.minimind)
        about["logit_difference"] = elsewhere(minimind.logit_difference, arguments.minimind, sides[0].workload)
    if not on_gpu:
        about["doctor_estimate_mib"] = elsewhere(estimate_memory, sides[0]) / MIB
    if on_gpu:
        about["gpu_peak_flops"] = 1e12 * arguments.peak_tflops if arguments.peak_tflops else elsewhere(gpu_peak)
    workers = [started("rates", measure_rates, chosen, DTYPES[arguments.dtype], arguments.threads, by_processor)]
    workers += [started(side.name, work, side) for side in sides]
    rates, *updates = take_turns(workers, arguments.repeats)
    return conclude(about, chosen, dict(zip((side.name for side in sides), updates, strict=True)), rates)


def line_up(arguments: argparse.Namespace, chosen: Setting, folder: Path) -> list[Side]:
    """Ours first, then those that it is compared with."""
    ours = Side(
        name=OURS,
        trainer="rlhf",
        setting=chosen,
        workload=folder / "workload",
        dtype=DTYPES[arguments.dtype],
        critic=arguments.critic,
        threads=arguments.threads,
    )
    sides = [ours]
    if arguments.against == "trl":
        sides.append(replace(ours, name=THEIRS, trainer="trl"))
        if arguments.dtype == "bf16" and arguments.setting != "llama":
            sides.append(replace(ours, name=THEIRS_FP32, trainer="trl", dtype="float32"))
    if arguments.against == "minimind":
        sides.append(replace(ours, name=ALL_WEIGHTS, critic="separate"))
        sides.append(replace(ours, name=MINIMIND, trainer="minimind", sources=arguments.minimind.resolve()))
    if chosen.shortest_response is not None:
        sides.append(replace(ours, name=OURS_FULL, setting=chosen.full_length, workload=folder / "full_length"))
    return sides


def machine() -> dict[str, str]:
    """What the figures depend on besides the settings."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"processor": names[0] if names else platform.machine(), "cores": str(os.cpu_count())} | gpu | versions()


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "transformers", "peft", "trl")}


if __name__ == "__main__":
    main()
