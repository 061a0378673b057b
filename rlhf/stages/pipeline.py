"""The whole of it: SFT, evaluation, PPO, evaluation, summary."""

import json
import time
from dataclasses import replace
from pathlib import Path

from rlhf.config import EvaluateConfig, ModelConfig, PipelineConfig
from rlhf.data.examples import load_held_out, load_training, warn_of_leak
from rlhf.errors import visible
from rlhf.report.model_card import add_held_out
from rlhf.report.plots import plot_reward_and_kl
from rlhf.report.tables import before_after, markdown_table, print_heading, print_table
from rlhf.report.write import REPORT_FILE, write_report
from rlhf.runs.files import read_jsonl, write_atomically
from rlhf.runs.folder import METRICS_FILE, is_done, mark_done, open_run
from rlhf.runs.hub import push
from rlhf.runs.locking import alone_in_its_folder
from rlhf.stages.evaluate import Measurement, run_evaluate
from rlhf.stages.ppo import run_ppo
from rlhf.stages.sft import run_sft

SAMPLES_SHOWN = 3
COLUMNS = ["held-out mean", "SFT", "PPO", "change"]


@alone_in_its_folder
def run_pipeline(config: PipelineConfig) -> dict[str, dict[str, float]]:
    """Run every stage that is not done yet, then show and write the summary; returns the means of `sft` and `ppo`."""
    folder = open_run(config.output_dir, config)
    started = time.monotonic()
    if not is_done(folder) and config.sft.data.eval is None:  # else SFT says so itself
        warn_of_leak(load_training(config.sft.data, text_is_answer=True), load_held_out(config.ppo.data))
    sft_model = run_sft(replace(config.sft, output_dir=str(folder / "sft"), seed=config.seed))
    before = evaluate(config, folder / "evaluation_sft", sft_model)
    base = replace(config.ppo.model, name_or_path=str(sft_model))
    ppo = replace(config.ppo, output_dir=str(folder / "ppo"), seed=config.seed, model=base, push_to_hub=None)
    policy = run_ppo(ppo)
    after = evaluate(config, folder / "evaluation_ppo", policy)
    add_held_out(policy, before.means, after.means)
    push(policy, config.ppo.push_to_hub)  # only now: its card has the held-out results
    summarize(folder, before, after)
    if not is_done(folder):
        mark_done(folder, time.monotonic() - started)
    report = write_report([folder], folder / REPORT_FILE)
    if report:
        print(f"report       {report}  (open it in a browser)")
    return {"sft": before.means, "ppo": after.means}


def evaluate(config: PipelineConfig, folder: Path, model: Path) -> Measurement:
    """Held-out measurement of one model: the rewards that are trained on, and those that are only measured."""
    measured_only = [replace(spec, weight=0.0) for spec in config.evaluation.metrics]
    return run_evaluate(
        EvaluateConfig(
            output_dir=str(folder),
            model=ModelConfig(name_or_path=str(model), dtype=config.ppo.model.dtype),
            data=config.ppo.data,
            rewards=[*config.ppo.rewards, *measured_only],
            environment=config.ppo.environment,
            sampling=config.ppo.sampling,
            prompts=config.evaluation.prompts,
            num_generations=config.evaluation.num_generations,
            seed=config.evaluation.seed,
        )
    )


def summarize(folder: Path, before: Measurement, after: Measurement) -> None:
    """Print the before/after table and samples; write summary.json, summary.md and the plot."""
    means = {"sft": before.means, "ppo": after.means}
    write_atomically(folder / "summary.json", json.dumps(means, indent=2) + "\n")
    warmup = sum(row["policy/warmup"] for row in read_jsonl(folder / "ppo" / METRICS_FILE))
    plot = folder / "reward_kl.png"
    plot_reward_and_kl(folder / "ppo", plot, int(warmup))
    rows = before_after(before.means, after.means)
    samples = sample_pairs(before, after)
    document = ["# Before and after PPO", "", markdown_table(COLUMNS, rows), ""]
    if plot.is_file():  # not without matplotlib
        document += ["![reward and KL](reward_kl.png)", ""]
    for prompt, first, second in samples:
        print_heading(prompt)
        print(visible(f"--- SFT\n{first}\n--- PPO\n{second}"))
        document += [f"## {prompt}", "SFT:", f"```tsx\n{first}\n```", "PPO:", f"```tsx\n{second}\n```", ""]
    write_atomically(folder / "summary.md", "\n".join(document))
    print()
    print_table(COLUMNS, rows)
    if plot.is_file():
        print(f"plot         {plot}")
    print(
        f"summary      {folder / 'summary.json'}, {folder / 'summary.md'}\n"
        f"metrics      {folder / 'ppo' / 'metrics.jsonl'}, samples.jsonl beside it\n"
        f"SFT model    {folder / 'sft' / 'model'}\n"
        f"PPO policy   {folder / 'ppo' / 'policy'}"
    )


def sample_pairs(before: Measurement, after: Measurement) -> list[tuple[str, str, str]]:
    """Prompt, response before, response after: a few, evenly spread over the held-out prompts."""
    stride = max(1, len(before.rows) // SAMPLES_SHOWN)
    pairs = list(zip(before.rows, after.rows, strict=True))[::stride][:SAMPLES_SHOWN]
    return [(old["prompt"], old["response"], new["response"]) for old, new in pairs]
