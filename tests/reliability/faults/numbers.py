"""NaN, infinities and spikes in loss, gradient and logits."""

import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.fault import Fault, once
from faults.inject import Injection
from faults.trial import Trial

PPO_LOSS, SFT_LOSS = "rlhf.ppo.update:ClippedEpochs.loss", "trl.trainer.sft_trainer:SFTTrainer.compute_loss"
PPO_GRADIENT, SFT_GRADIENT = "rlhf.parallel.ranks:Ranks.sum_gradients", "accelerate:Accelerator.clip_grad_norm_"
TRAINING_LOGITS, SAMPLING_LOGITS = "rlhf.policy.logprobs:at_least_float32", "rlhf.sampling.decode:choose"
SPIKE = {"do": "poison_gradient", "value": 1e6}
STEP = {"ppo": 4, "sft": 6}
MODEL = {"ppo": "policy", "sft": "model"}
VALUES = {"NaN": math.nan, "Inf": math.inf}
SKIPPED = {"ppo": "policy/skipped_steps", "sft": "sft/skipped_steps"}


def skipped(trial: Trial, injection: Injection) -> None:
    """The step is left out and counted; all parameters and all other rows are finite."""
    trial.finished(trial.start(injection))
    rows = finite_rows(trial)
    count = sum(row.get(SKIPPED[trial.stage], 0) for row in rows)
    if count != 1 or not rows[STEP[trial.stage] - 1].get(SKIPPED[trial.stage]):
        trial.fail(f"{count} steps are said to be skipped, not the one in step {STEP[trial.stage]}")
    trial.seen.append("one step skipped and counted, parameters finite")


def clipped(trial: Trial, injection: Injection) -> None:
    """A gradient that is finite is scaled down to max_grad_norm; the weights stay near those of the undisturbed run."""
    trial.finished(trial.start(injection))
    norm = "policy/grad_norm" if trial.stage == "ppo" else "sft/grad_norm"
    norms = [row[norm] for row in finite_rows(trial)]
    if max(norms) < 100 * sorted(norms)[-2]:
        trial.fail("the spike is not seen in the metrics")
    trial.seen.append("clipped, parameters finite")


def finite_rows(trial: Trial) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; fails if a parameter is not finite, or a number in a step that was not poisoned."""
    from safetensors.torch import load_file

    from rlhf.runs.files import read_jsonl
    from rlhf.runs.folder import METRICS_FILE

    for file in (trial.run / MODEL[trial.stage]).rglob("*.safetensors"):
        if not all(tensor.isfinite().all() for tensor in load_file(file).values()):
            trial.fail(f"{file.name} holds parameters that are not finite")
    rows = read_jsonl(trial.run / METRICS_FILE)
    for row in rows:
        if row["step"] != STEP[trial.stage] and not all(math.isfinite(x) for x in row.values()):
            trial.fail(f"step {row['step']} has numbers that are not finite")
    return rows


def judged_by_nan(trial: Trial, value: float) -> None:
    """The logits from which the log-probabilities before the update are taken: no step of the update can be taken."""
    trial.changes["max_skipped_steps"] = 8
    trial.finished(trial.start({"do": "poison_logits", "at": TRAINING_LOGITS, "nth": 27, "value": value}))
    rows = finite_rows(trial)
    if rows[STEP["ppo"]]["policy/steps"] != 2:
        trial.fail("the next update took no step")
    trial.seen.append("one update without steps, then on; parameters finite")


def poisoned_for_good(trial: Trial) -> None:
    """From one moment on every loss is NaN: the run gives up, with the minibatch on the disk."""
    injections = [{"do": "poison_loss", "at": PPO_LOSS, "nth": nth, "value": math.nan} for nth in range(9, 13)]
    trial.refused(trial.start(*injections), "not finite in 2 optimizer steps in a row")
    require_minibatch(trial.run / "non_finite_minibatch")
    shutil.rmtree(trial.run / "non_finite_minibatch")
    trial.continue_()


def require_minibatch(folder: Path) -> None:
    from rlhf.ppo.rollout_files import load_rollout

    load_rollout(folder)


def sampled_from_nothing(trial: Trial, value: float) -> None:
    injection = {"do": "poison_logits", "at": SAMPLING_LOGITS, "nth": 44, "value": value}
    trial.refused(trial.start(injection), "logits .* not finite")
    trial.continue_()


def killed_after_skipping(trial: Trial) -> None:
    """Skips are counted across a restart: the count is in the checkpoint."""
    nan = {"do": "poison_loss", "at": PPO_LOSS, "nth": 8, "value": math.nan}
    kill = {"do": "send_signal", "at": PPO_GRADIENT, "nth": 10, "number": signal.SIGKILL}
    trial.killed(trial.start(nan, kill), signal.SIGKILL)
    trial.finished(trial.start())
    if [row[SKIPPED["ppo"]] for row in finite_rows(trial)] != [0, 0, 0, 1, 0, 0]:
        trial.fail("the skipped step of update 4 is not counted any more")


def faults() -> list[Fault]:
    """All of this kind."""
    return [
        *in_one_step(),
        *spikes(),
        *in_logits(),
        Fault(
            name="NaN in every loss",
            where="ppo, from update 5 on",
            expected="gives up in one line, the minibatch on the disk; continues once the cause is mended",
            attacks=once(poisoned_for_good),
        ),
        Fault(
            name="NaN in the loss, then SIGKILL",
            where="ppo, one step",
            expected="the skipped step stays counted",
            attacks=once(killed_after_skipping),
        ),
    ]


def in_one_step() -> list[Fault]:
    """Each value in all that a step is computed from."""
    places = [
        ("ppo", "loss", "poison_loss", PPO_LOSS, 8),
        ("ppo", "gradient", "poison_gradient", PPO_GRADIENT, 8),
        ("ppo", "logits of the update", "poison_logits", TRAINING_LOGITS, 29),
        ("sft", "loss", "poison_loss", SFT_LOSS, 11),
        ("sft", "gradient", "poison_gradient", SFT_GRADIENT, 6),
    ]
    return [
        Fault(
            name=f"{name} in the {what}",
            where=f"{stage}, one step",
            expected="the step is skipped and counted; parameters stay finite",
            attacks=once(skipped, injection={"do": do, "at": at, "nth": nth, "value": value}),
            stage=stage,
        )
        for stage, what, do, at, nth in places
        for name, value in VALUES.items()
    ]


def spikes() -> list[Fault]:
    """A finite gradient that is far too large."""
    return [
        Fault(
            name="gradient a million times too large",
            where=f"{stage}, one step",
            expected="clipped to max_grad_norm; seen in the metrics",
            attacks=once(clipped, injection=SPIKE | {"at": at, "nth": nth}),
            stage=stage,
        )
        for stage, at, nth in (("ppo", PPO_GRADIENT, 8), ("sft", SFT_GRADIENT, 6))
    ]


def in_logits() -> list[Fault]:
    """Each value where responses are sampled, and where they are evaluated before the update."""
    refused = "refused in one line; the same command continues"
    no_steps = "its steps are skipped; parameters and all that follows stay finite"
    attacks: list[tuple[str, str, str, Callable[..., None]]] = [
        ("sampling", "rollout", refused, sampled_from_nothing),
        ("the evaluation", "one update", no_steps, judged_by_nan),
    ]
    return [
        Fault(
            name=f"{name} in the logits of {what}",
            where=f"ppo, {where}",
            expected=expected,
            attacks=once(attack, value=value),
        )
        for what, where, expected, attack in attacks
        for name, value in VALUES.items()
    ]
