"""The whole pipeline: SFT, evaluation, PPO, evaluation, summary."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

from rlhf.config import EvaluateConfig, ModelConfig, PipelineConfig, SFTConfig
from rlhf.data.examples import load_held_out, load_training, warn_of_leak
from rlhf.errors import visible
from rlhf.evaluation.measure import Measurement
from rlhf.evaluation.policy import BEST_FOLDER
from rlhf.models.precision import begun_with, settled_model
from rlhf.report.model_card import add_held_out
from rlhf.report.plots import plot_reward_and_kl
from rlhf.report.previews import in_words, rendered, rewards_react
from rlhf.report.tables import before_after, markdown_table, print_heading, print_table
from rlhf.report.write import REPORT_FILE, write_report
from rlhf.runs.files import read_jsonl, write_atomically
from rlhf.runs.folder import METRICS_FILE, as_plain, is_done, mark_done, open_run
from rlhf.runs.hub import push
from rlhf.runs.locking import alone_in_its_folder
from rlhf.stages.evaluate import run_evaluate
from rlhf.stages.ppo import run_ppo
from rlhf.stages.sft import run_sft

SAMPLES_SHOWN = 3
TITLES = {"sft": "SFT", "base": "base", "ppo": "PPO"}


@alone_in_its_folder
def run_pipeline(config: PipelineConfig) -> dict[str, dict[str, float]]:
    """Run every stage that is not done yet, then show and write the summary.

    Returns the means before and after PPO: of `sft`, or of `base` where there is no SFT, and of `ppo`.
    """
    config = with_dtypes(config)
    folder = open_run(config.output_dir, config)
    started = time.monotonic()
    first, start = ("base", config.ppo.model) if config.sft is None else ("sft", fine_tuned(config, config.sft, folder))
    before = evaluate(config, folder / f"evaluation_{first}", start)
    ppo = replace(config.ppo, output_dir=str(folder / "ppo"), seed=config.seed, model=start, push_to_hub=None)
    policy = run_ppo(ppo)
    after = evaluate(config, folder / "evaluation_ppo", replace(start, name_or_path=str(policy), gguf_file=None))
    add_held_out(policy, before.means, after.means)
    push(policy, config.ppo.push_to_hub)  # only now: its card has the held-out results
    measured = {first: before, "ppo": after}
    summarize(config, folder, measured)
    if not is_done(folder):
        mark_done(folder, time.monotonic() - started)
    report = write_report([folder], folder / REPORT_FILE)
    if report:
        print(f"report       {report}  (open it in a browser)")
    return {name: measurement.means for name, measurement in measured.items()}


def with_dtypes(config: PipelineConfig) -> PipelineConfig:
    """The config with the precision that `model.dtype: auto` means for this run, in SFT and in PPO."""

    def settle(model: ModelConfig, stage: str) -> ModelConfig:
        return settled_model(model, begun_with(config.output_dir, stage, "model"))

    ppo = replace(config.ppo, model=settle(config.ppo.model, "ppo"))
    sft = config.sft and replace(config.sft, model=settle(config.sft.model, "sft"))
    return replace(config, ppo=ppo, sft=sft)


def fine_tuned(config: PipelineConfig, sft: SFTConfig, folder: Path) -> ModelConfig:
    """The SFT stage; returns its model as PPO is to load it."""
    if not is_done(folder) and sft.data.eval is None:  # else SFT says so itself
        warn_of_leak(load_training(sft.data, text_is_answer=True), load_held_out(config.ppo.data))
    model = run_sft(replace(sft, output_dir=str(folder / "sft"), seed=config.seed))
    return replace(config.ppo.model, name_or_path=str(model), gguf_file=None)


def evaluate(config: PipelineConfig, folder: Path, model: ModelConfig) -> Measurement:
    """Held-out measurement of one model: the rewards that are trained on, and those that are only measured."""
    measured_only = [replace(spec, weight=0.0) for spec in config.evaluation.metrics]
    return run_evaluate(
        EvaluateConfig(
            output_dir=str(folder),
            model=replace(model, gradient_checkpointing=False),
            data=config.ppo.data,
            rewards=[*config.ppo.rewards, *measured_only],
            environment=config.ppo.environment,
            sampling=config.ppo.sampling,
            prompts=config.evaluation.prompts,
            num_generations=config.evaluation.num_generations,
            pass_at_k=config.evaluation.pass_at_k,
            greedy=config.evaluation.greedy,
            seed=config.evaluation.seed,
        )
    )


def summarize(config: PipelineConfig, folder: Path, measured: dict[str, Measurement]) -> None:
    """Print the before/after table and samples; write summary.json, summary.md and the plot."""
    before, after = measured.values()
    means = {name: measurement.means for name, measurement in measured.items()}
    labels = [TITLES[name] for name in measured]
    columns = ["held-out mean", *labels, "change"]
    write_atomically(folder / "summary.json", json.dumps(means, indent=2) + "\n")
    warmup = sum(row.get("policy/warmup", 0) for row in read_jsonl(folder / "ppo" / METRICS_FILE))
    plot = folder / "reward_kl.png"
    plot_reward_and_kl(folder / "ppo", plot, int(warmup))
    rows = before_after(before.means, after.means)
    samples = sample_pairs(before, after)
    pages = rendered([text for _, *pair in samples for text in pair]) if rewards_react(as_plain(config)) else {}
    document = ["# Before and after PPO", "", markdown_table(columns, rows), ""]
    if plot.is_file():  # not without matplotlib
        document += ["![reward and KL](reward_kl.png)", ""]
    for prompt, *pair in samples:
        print_heading(prompt)
        document += [f"## {visible(prompt.strip().partition(chr(10))[0])}", ""]
        for label, response in zip(labels, pair, strict=True):
            page = visible(in_words(pages[response])) if response in pages else ""
            print(f"--- {label}", visible(response), page, sep="\n")
            document += [f"{label}:", fenced(response, "tsx" if pages else ""), *([f"It {page}", ""] if page else [""])]
    write_atomically(folder / "summary.md", "\n".join(document))
    print()
    print_table(columns, rows)
    if plot.is_file():
        print(f"plot         {plot}")
    best = folder / "ppo" / BEST_FOLDER
    print(
        f"summary      {folder / 'summary.json'}, {folder / 'summary.md'}\n"
        f"metrics      {folder / 'ppo' / 'metrics.jsonl'}, samples.jsonl beside it\n"
        f"PPO policy   {folder / 'ppo' / 'policy'}" + (f"\nbest policy  {best}" if best.is_dir() else "")
    )


def fenced(text: str, language: str) -> str:
    """A Markdown block of code, whatever fences the text itself holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def sample_pairs(before: Measurement, after: Measurement) -> list[tuple[str, str, str]]:
    """Prompt, response before, response after: a few, evenly spread over the held-out prompts."""
    stride = max(1, len(before.rows) // SAMPLES_SHOWN)
    pairs = list(zip(before.rows, after.rows, strict=True))[::stride][:SAMPLES_SHOWN]
    return [(old["prompt"], old["response"], new["response"]) for old, new in pairs]
