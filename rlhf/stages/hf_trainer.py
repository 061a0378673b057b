"""What the stages that run a Hugging Face Trainer share: its arguments, how it reports, saves and stops."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from rlhf.config import DType, FineTuningConfig
from rlhf.config.checks import require_divides
from rlhf.errors import Interrupted
from rlhf.evaluation.held_out import HeldOut
from rlhf.models.private_names import reset_accelerator_state
from rlhf.parallel.launch import engine
from rlhf.parallel.ranks import Ranks
from rlhf.runs.checkpoints import CHECKPOINTS_FOLDER, CheckpointManager
from rlhf.runs.folder import as_plain
from rlhf.runs.interruption import catch_termination
from rlhf.stages.by_length import by_length
from rlhf.stages.fast_forward import fast_forward
from rlhf.stages.resumable import resumable
from rlhf.stages.zero import ZeroResumable
from rlhf.tracking.progress import ProgressBar
from rlhf.tracking.tracker import Tracker


def dtype_of_weights(config: FineTuningConfig) -> DType:
    """That of the model while it is trained: float32 where all weights are, model.dtype where adapters are.

    The products are in model.dtype either way; in bfloat16 most steps of full fine-tuning would round to nothing.
    """
    return "float32" if config.lora is None else config.model.dtype


def training_arguments(config: FineTuningConfig, folder: Path, device_type: str) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments: our settings, and none of its own files and reports."""
    from accelerate import PartialState

    processes = PartialState().num_processes
    require_divides("batch_size", config.batch_size, "the number of processes", processes)
    share = config.batch_size // processes
    micro_batch_size = min(config.micro_batch_size or share, share)
    require_divides("the batch of a process,", share, "micro_batch_size", micro_batch_size)
    return {
        "output_dir": str(folder / "trainer"),
        "num_train_epochs": config.num_train_epochs,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": share // micro_batch_size,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_fraction,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "ddp_find_unused_parameters": False,  # there are none
        "max_length": None,  # data.py has already seen to lengths
        # Grouped by length they come longest first, over and over: SFT and reward models learned clearly less.
        "train_sampling_strategy": "random",
        "activation_checkpointing": config.model.gradient_checkpointing,
        "bf16": config.model.dtype == "bfloat16" and not (config.fast_paths and config.lora),
        "use_cpu": device_type == "cpu",
        "dataloader_pin_memory": device_type == "cuda",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN loss is logged as 0
        "save_strategy": "no",  # run_trainer asks for checkpoints
        "report_to": [],
        "disable_tqdm": True,
        "seed": config.seed,
    }


def trainer_class(trainer: type, config: FineTuningConfig) -> type:
    """TRL's trainer with what we change of it: how it saves and goes on, and (`fast_paths`) how it divides its work."""
    if engine() == "deepspeed":  # each backward pass that it sees would be one of its micro-batches
        return resumable(trainer, ZeroResumable)
    return resumable(by_length(trainer) if config.fast_paths else trainer)


def run_trainer(
    trainer: Any, stage: str, folder: Path, config: FineTuningConfig, metrics: dict[str, str], held_out: HeldOut
) -> None:
    """Train from the latest checkpoint, with our progress bar and metrics; `metrics` maps the trainer's names to ours.

    `held_out` measures the model along the way, and may end the training before the last step.

    `trainer` is of a class that `rlhf.stages.resumable` made. Raises Interrupted after SIGTERM or Ctrl-C, with a
    checkpoint.
    """
    from transformers import PrinterCallback

    ranks = Ranks.of(trainer.accelerator)
    trainer.checkpoints = CheckpointManager(folder / CHECKPOINTS_FOLDER, config.checkpoint.save_total_limit, config)
    checkpoint = trainer.checkpoints.latest()
    resumed_at = trainer.checkpoints.step_of(checkpoint) if checkpoint else None
    if checkpoint and ranks.is_first:
        print(f"continuing after step {resumed_at}, from {checkpoint}", flush=True)
    trainer.held_out = held_out
    trainer.remove_callback(PrinterCallback)
    with (
        Tracker(folder, stage, config.tracking, as_plain(config), ranks.is_first, resumed_at) as tracker,
        ExitStack() as at_the_end,
        fast_forward(trainer.model) if config.fast_paths else nullcontext(),
    ):
        every = config.checkpoint.save_steps
        trainer.add_callback(_saver_and_reporter(stage, every, ranks, metrics, tracker, held_out, at_the_end))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    reset_accelerator_state()  # else its mixed precision would be that of the next stage in this process
    if trainer.state.global_step < trainer.state.max_steps and not held_out.stop:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, with a checkpoint; "
            "the same command continues from there"
        )
    held_out.say_best()


def _saver_and_reporter(
    stage: str,
    every: int,
    ranks: Ranks,
    metrics: dict[str, str],
    tracker: Tracker,
    held_out: HeldOut,
    at_the_end: ExitStack,
) -> Any:
    """Asks for a checkpoint every so many steps, and for one and the end of training when a process has to stop;
    moves the progress bar and writes the metrics of every step. What it opens is closed `at_the_end`."""
    from transformers import TrainerCallback

    class SaverAndReporter(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar = ProgressBar(stage, state.max_steps, ranks.is_first, done=state.global_step)
            self.bar = at_the_end.enter_context(bar)
            self.termination = at_the_end.enter_context(catch_termination(bar.stopping))
            held_out.before_training(state.global_step, tracker, bar)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step, is_last = state.global_step, state.global_step >= state.max_steps
            trained = step > 1 or args.get_warmup_steps(state.max_steps) == 0  # a warm-up begins at 0
            self.measured = held_out.after_step(step, is_last, tracker, self.bar, trained)
            if held_out.stop:  # without a checkpoint: the Trainer could not be started at the end of a run
                control.should_training_stop = True
            elif not is_last:  # after the last step the model itself is written
                stop = ranks.any(self.termination.requested)
                control.should_save = stop or held_out.found_best(step) or step % every == 0
                control.should_training_stop = stop

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            held_out.keep_best(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:
                held_out.keep_best(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" in logs:
                ours = {name: logs[theirs] for theirs, name in metrics.items() if theirs in logs}
                tracker.log(ours | self.measured, state.global_step)
                self.bar.advance({"loss": f"{logs['loss']:.3f}"})
                state.log_history.clear()  # nobody reads it, and it grows with every step

    return SaverAndReporter()
