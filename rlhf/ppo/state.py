"""All that an interrupted PPO run needs to go on as if nothing had happened."""

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.errors import UserError
from rlhf.models.shares import gathered, load_optimizer
from rlhf.policy.files import read_policy, save_policy
from rlhf.ppo.trainer import Batch, PPOTrainer
from rlhf.report.model_card import write_policy_card
from rlhf.rewards import Scores
from rlhf.runs.state_files import load_state, restore_rng_state, rng_state, save_state
from rlhf.sampling.stored import restored, stored
from rlhf.watch.watch import Watch

if TYPE_CHECKING:
    from rlhf.evaluation.held_out import HeldOut

POLICY_FOLDER, STATE = "policy", "trainer"


def training_state(trainer: PPOTrainer, watch: Watch, held_out: "HeldOut") -> dict[str, Any]:
    """Everything but the weights; all ranks have to call it."""
    with trainer.ranks.failing_together():  # first: until it is there, seeds are drawn
        ahead = None if trainer.ahead is None else trainer.ahead.state_dict()
        batch = stored_batch(trainer.batch) if trainer.reused else None
    ours = {"sampling": trainer.generator.get_state().cpu(), "globals": rng_state(), "ahead": ahead, "batch": batch}
    return {
        "updates_done": trainer.updates_done,
        "warming_up": trainer.warming_up,
        "copies": trainer.policy.shortcuts.copies,
        "kl_controller": trainer.kl_controller.state_dict(),
        "score_moments": trainer.score_moments.state_dict(),
        "prompts": trainer.prompts.state_dict(),
        "shuffler": trainer.shuffler.get_state(),
        "optimizer": gathered(trainer.epochs.optimizer.state_dict(), keep=trainer.ranks.is_first),
        "skipped_in_a_row": trainer.epochs.skipped_in_a_row,
        "watch": watch.state_dict(),
        "held_out": held_out.state_dict(),
        "random": trainer.ranks.gather(ours),
    }


def write_training(folder: Path, trainer: PPOTrainer, state: dict[str, Any], run: Path) -> None:
    """Fill a checkpoint: policy/, which every stage can load as a model, and the rest of the state."""
    (folder / POLICY_FOLDER).mkdir()
    write_policy(folder / POLICY_FOLDER, trainer, run)
    save_state(folder, STATE, state)


def write_policy(folder: Path, trainer: PPOTrainer, run: Path) -> None:
    """Fill a folder with the policy, its tokenizer and its model card; the metrics in it are those of the run."""
    save_policy(trainer.policy, folder)
    trainer.tokenizer.save_pretrained(folder)
    write_policy_card(folder, trainer.config, trainer.updates_done, run)


def read_training(folder: Path, trainer: PPOTrainer, watch: Watch, held_out: "HeldOut") -> None:
    """Put the trainer where `write_training` found it.

    Raises UserError if the checkpoint is of another number of processes, or not one of this trainer.
    """
    state = load_state(folder, STATE)
    processes = len(state["random"])
    if processes != trainer.ranks.count:
        raise UserError(
            f"{folder} was saved by {processes} processes and this run has {trainer.ranks.count}; "
            f"continue on {processes}, or start again in another output_dir"
        )
    read_policy(trainer.policy, folder / POLICY_FOLDER)
    trainer.updates_done, trainer.warming_up = state["updates_done"], state["warming_up"]
    trainer.policy.shortcuts.copies = state.get("copies", True)  # as in earlier releases
    trainer.kl_controller.load_state_dict(state["kl_controller"])
    trainer.score_moments.load_state_dict(state["score_moments"])
    ours = state["random"][trainer.ranks.index]
    if trainer.ahead is not None and ours.get("ahead") is not None:  # no key in an earlier release
        trainer.ahead.load_state_dict(ours["ahead"], trainer.policy.device)
    if ours.get("batch") is not None:
        trainer.batch = restored_batch(ours["batch"], trainer.policy.device)
    trainer.prompts.load_state_dict(state["prompts"])
    trainer.shuffler.set_state(state["shuffler"])
    load_optimizer(trainer.epochs.optimizer, state["optimizer"])
    trainer.epochs.skipped_in_a_row = state["skipped_in_a_row"]
    watch.load_state_dict(state["watch"])
    held_out.load_state_dict(state.get("held_out"))  # none of an earlier release
    trainer.generator.set_state(ours["sampling"])
    restore_rng_state(ours["globals"])  # last: what comes before may have drawn numbers


def stored_batch(batch: Batch) -> dict[str, Any]:
    """A batch that the next update learns from too, with its scores."""
    responses, scoring = batch
    scores = Scores.concatenate([part.result() for part in scoring])
    return {"responses": stored(responses), "scores": scores.stored()}


def restored_batch(state: dict[str, Any], device: torch.device) -> Batch:
    """What `stored_batch` was given."""
    scores: Future[Scores] = Future()
    scores.set_result(Scores.restored(state["scores"]))
    return restored(state["responses"], device), [scores]
