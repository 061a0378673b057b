"""The loop around the updates: report, watch, save, stop when asked to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.errors import Interrupted, UserError, one_line
from rlhf.parallel.launch import said_once
from rlhf.policy.sharding import in_step
from rlhf.policy.whole import whole_on_first
from rlhf.ppo.inspection import Inspection
from rlhf.ppo.rollout import Rollout
from rlhf.ppo.rollout_files import save_rollout
from rlhf.ppo.start import StartChecks, check_tokens
from rlhf.ppo.state import POLICY_FOLDER, read_training, training_state, write_policy, write_training
from rlhf.ppo.trainer import PPOTrainer, Update
from rlhf.ppo.update import Metrics, NonFiniteError
from rlhf.rewards import Scores
from rlhf.runs.checkpoints import CHECKPOINTS_FOLDER, CheckpointManager
from rlhf.runs.files import staged
from rlhf.runs.folder import as_plain
from rlhf.runs.interruption import catch_termination
from rlhf.tracking.progress import ProgressBar
from rlhf.tracking.tracker import Tracker
from rlhf.watch.watch import Watch

if TYPE_CHECKING:
    from rlhf.evaluation.held_out import HeldOut

ROLLOUTS_FOLDER = "rollouts"


def train(trainer: PPOTrainer, folder: Path, held_out: "HeldOut") -> Path:
    """Run the updates that are left and write the policy; returns its folder.

    `held_out` measures the policy along the way, and may end the run before the last update.

    Goes on from the newest intact checkpoint in `folder`. SIGTERM and Ctrl-C end it after the update at hand, with a
    checkpoint, by raising Interrupted.
    """
    config, ranks = trainer.config, trainer.ranks
    checkpoints = CheckpointManager(folder / CHECKPOINTS_FOLDER, config.checkpoint.save_total_limit, config)
    watch = Watch(config.watch, config.adaptive_kl_target, config.response_limit, config.environment is not None)
    inspection = Inspection(trainer, folder / ROLLOUTS_FOLDER)
    resumed_at = resume(trainer, watch, held_out, checkpoints)
    check_tokens(trainer)
    trainer.choose_copies()
    trainer.callbacks = [StartChecks(), *trainer.callbacks]
    with (
        Tracker(folder, "ppo", config.tracking, as_plain(config), ranks.is_first, resumed_at) as tracker,
        ProgressBar("ppo", config.num_updates, ranks.is_first, done=trainer.updates_done) as bar,
        catch_termination(bar.stopping) as termination,
    ):
        held_out.before_training(trainer.updates_done, tracker, bar)
        while not over(trainer, watch, held_out):
            step, is_new = trainer.updates_done + 1, not trainer.reused
            with ranks.failing_together(), in_step(trainer.policy):
                inspection.before_update(step)
            update = guarded_update(trainer, folder)
            with ranks.failing_together(), in_step(trainer.policy):
                inspected = inspection.after_update()
            for finding in watch.check(step, update.metrics) if is_new else []:
                tracker.log_warning(finding.name, finding.message, step)
                bar.say(f"warning: {finding.message}")
            samples = sample_rows(update.rollout, update.scores, max(1, config.tracking.samples))
            tracker.log_samples(samples[: config.tracking.samples], step)
            if inspected:
                tracker.log_inspected(inspected, step)
            note = "critic warm-up" if trainer.warming_up else ""
            bar.advance(figures(update.metrics), note, (samples[0]["prompt"], samples[0]["response"]))
            is_last, counts = over(trainer, watch, held_out), not update.metrics["policy/warmup"]
            measured = held_out.after_step(step, is_last, tracker, bar, counts)
            tracker.log(update.metrics | measured, step)
            asked_to_stop = ranks.any(termination.requested)
            if asked_to_stop or held_out.found_best(step) or step % config.checkpoint.save_steps == 0:
                save(trainer, watch, held_out, checkpoints)
            held_out.keep_best(step)
            if asked_to_stop:
                break
    if not over(trainer, watch, held_out):
        raise Interrupted(f"saved after update {step} of {config.num_updates}; the same command continues")
    with whole_on_first(trainer.policy):
        if ranks.is_first:
            with staged(folder / POLICY_FOLDER) as staging:
                write_policy(staging, trainer, folder)
                held_out.describe(staging)
    held_out.say_best()
    return folder / POLICY_FOLDER


def over(trainer: PPOTrainer, watch: Watch, held_out: "HeldOut") -> bool:
    """Whether there is no update left: all are done, or the run has seen enough of itself."""
    return trainer.updates_done >= trainer.config.num_updates or watch.stop or held_out.stop


def resume(trainer: PPOTrainer, watch: Watch, held_out: "HeldOut", checkpoints: CheckpointManager) -> int | None:
    """Continue from the newest intact checkpoint; returns the updates that it holds, None if there is none.

    The first rank looks and the others follow it.
    """
    [latest, *_] = trainer.ranks.exchange(lambda: checkpoints.latest() if trainer.ranks.is_first else None)
    if latest is None:
        return None
    with said_once():
        read_training(latest, trainer, watch, held_out)
    return trainer.updates_done


def save(trainer: PPOTrainer, watch: Watch, held_out: "HeldOut", checkpoints: CheckpointManager) -> None:
    """Write a checkpoint; all ranks take part, the first one writes, and none goes on before it has."""
    state, run = training_state(trainer, watch, held_out), checkpoints.folder.parent
    with whole_on_first(trainer.policy):
        trainer.ranks.first(
            lambda: checkpoints.save(trainer.updates_done, lambda place: write_training(place, trainer, state, run))
        )


def guarded_update(trainer: PPOTrainer, folder: Path) -> Update:
    """One update; a minibatch that keeps giving NaN is stored before the run gives up.

    Raises UserError then, and where memory does not suffice.
    """
    try:
        return trainer.update()
    except NonFiniteError as error:
        place = folder / "non_finite_minibatch"
        if trainer.ranks.is_first:
            save_rollout(place, error.minibatch, trainer.tokenizer)
        raise UserError(f"{error} in {place} (rlhf.ppo.rollout_files.load_rollout reads it)") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        reason = one_line(error)
        raise UserError(
            f"out of memory in update {trainer.updates_done + 1} ({reason[:200]}); the same command continues from the"
            " last checkpoint where there is more, or start in another output_dir with a smaller micro_batch_size"
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether there was no memory, on the device or beside it; torch has no class of its own for the latter."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def figures(metrics: Metrics) -> dict[str, str]:
    """The numbers of an update for the progress bar."""
    shown = {
        "score": f"{metrics['objective/score']:.3f}",
        **({"KL": f"{metrics['objective/kl']:z.2f}"} if "objective/kl" in metrics else {}),
        "length": f"{metrics['response/length']:.0f}",
        "tok/s": f"{metrics['time/tokens_per_second']:.0f}",
    }
    if "critic/loss" in metrics:
        shown["explained variance"] = f"{metrics['critic/explained_variance']:z.2f}"
    if metrics["policy/skipped_steps"]:
        shown["skipped steps"] = f"{metrics['policy/skipped_steps']:.0f}"
    return shown


def sample_rows(rollout: Rollout, scores: Scores, n_rows: int) -> list[dict[str, Any]]:
    """The first responses of a rollout with their scores and what was logged about them."""
    kl = (rollout.old_logprobs - rollout.ref_logprobs).sum(-1)
    rows = [
        {
            "prompt": rollout.examples[row].prompt,
            "response": rollout.texts[row],
            "score": float(rollout.scores[row]),
            **{f"reward/{name}": component[row] for name, component in scores.components.items()},
            "kl": float(kl[row]),
            "length": int(rollout.lengths[row]),
        }
        for row in range(min(n_rows, len(rollout)))
    ]
    return [scores.beside(row, fixed) for row, fixed in enumerate(rows)]
