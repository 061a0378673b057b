"""What scripts read from a trainer and assign to it: every assignment acts on the next step, or raises."""

import dataclasses
from typing import Any

import torch

from rlhf.classic.config import PPOConfig
from rlhf.classic.kl import ControllerOfTheirOwn
from rlhf.classic.methods import Methods, refuse_uncalled
from rlhf.classic.setup import bare, prepared_optimizer, replace_reference
from rlhf.classic.update import StepTrainer
from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.policy.policy import Policy

NEW_TRAINER = "make a new PPOTrainer"
FIXED = {
    **dict.fromkeys(("log_with", "tracker_project_name", "tracker_kwargs"), NEW_TRAINER),
    **dict.fromkeys(("project_kwargs", "accelerator_kwargs"), NEW_TRAINER),
    **dict.fromkeys(("world_size", "is_peft_model", "is_encoder_decoder"), "the trainer fills it in"),
    "seed": "call rlhf.set_seed",
    "init_kl_coef": "assign trainer.kl_ctl.value",
    "adap_kl_ctrl": "assign an AdaptiveKLController or FixedKLController to trainer.kl_ctl",
    "gradient_checkpointing": "call trainer.model.gradient_checkpointing_enable()",
    "remove_unused_columns": "call trainer.prepare_dataloader",
    "forward_batch_size": "set mini_batch_size",
    "optimize_cuda_cache": "set optimize_device_cache",
}
"""Settings that a trainer has acted on when it was built, and how to change what came of them."""


class Attributes(Methods):
    """The attributes of the classic trainer."""

    policy: Policy
    native: StepTrainer
    config: PPOConfig
    applied: dict[str, Any]
    is_encoder_decoder = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Raise UserError for an overridden method that nothing here would call."""
        super().__init_subclass__(**options)
        for base in cls.__mro__[: cls.__mro__.index(Attributes)]:
            refuse_uncalled(list(vars(base)), f"{base.__name__} overrides")

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_uncalled([name], "this assigns to")
        require(
            name != "accelerator" or "accelerator" not in vars(self),
            f"accelerator cannot be replaced, the update goes by the one there is; {NEW_TRAINER}",
        )
        super().__setattr__(name, value)

    @property
    def model(self) -> Any:
        """The value-head model that is trained."""
        return self.policy.wrapper

    @model.setter
    def model(self, model: Any) -> None:
        require(
            model is self.policy.wrapper,
            f"model cannot be replaced, the optimizer trains the one there is; {NEW_TRAINER}",
        )

    @property
    def ref_model(self) -> Any:
        """The reference; None for a PEFT model that is compared with itself, its adapters off."""
        return self._ref_model

    @ref_model.setter
    def ref_model(self, ref_model: Any) -> None:
        replace_reference(self.policy, ref_model)
        self._ref_model = ref_model

    @property
    def optimizer(self) -> Any:
        """In accelerate's wrapper; the learning rates of its param_groups are those that train."""
        return self.native.epochs.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self.native.epochs.optimizer = prepared_optimizer(optimizer, self.config, self.policy, self.accelerator)
        self.optimizer_is_given = True

    @property
    def lr_scheduler(self) -> Any:
        """In accelerate's wrapper, None where there is none; `step` steps it once, on any number of processes."""
        return self._lr_scheduler

    @lr_scheduler.setter
    def lr_scheduler(self, scheduler: Any) -> None:
        from rlhf.models.private_names import AcceleratedScheduler

        if scheduler is not None and not isinstance(scheduler, AcceleratedScheduler):
            scheduler = AcceleratedScheduler(scheduler, self.optimizer, step_with_optimizer=False)
        self._lr_scheduler = scheduler

    @property
    def kl_ctl(self) -> Any:
        """The controller of the KL coefficient, `kl_ctl.value`."""
        controller = self.native.kl_controller
        return controller.theirs if isinstance(controller, ControllerOfTheirOwn) else controller

    @kl_ctl.setter
    def kl_ctl(self, controller: Any) -> None:
        is_controller = hasattr(controller, "value") and callable(getattr(controller, "update", None))
        require(
            is_controller,
            f"kl_ctl is a {type(controller).__name__}; it must have `value` and `update(current, n_steps)`",
        )
        is_ours = hasattr(controller, "kl_coef")
        self.native.kl_controller = controller if is_ours else ControllerOfTheirOwn(controller)

    @property
    def current_device(self) -> torch.device:
        """Where the model is."""
        return self.policy.device

    @current_device.setter
    def current_device(self, device: Any) -> None:
        wanted, here = torch.device(device), self.policy.device
        require(
            wanted.type == here.type and wanted.index in (None, here.index),
            f"current_device is {wanted}, but the model is on {here}; move it before it is given to PPOTrainer",
        )

    @property
    def is_peft_model(self) -> bool:
        """Whether adapters are trained."""
        return self.policy.is_peft

    @property
    def is_distributed(self) -> bool:
        """Whether there are several processes."""
        return bool(self.accelerator.num_processes > 1)

    @property
    def optional_peft_ctx(self) -> Any:
        """A context in which the model of `ref_model` None is the reference."""
        return self.policy.reference

    def fill_in_config(self) -> None:
        """Set the fields of the config that say what the trainer found, where nobody has set them."""
        config = self.config
        config.world_size = config.world_size or self.accelerator.num_processes
        config.is_encoder_decoder = bool(config.is_encoder_decoder)
        config.is_peft_model = self.is_peft_model if config.is_peft_model is None else config.is_peft_model

    def apply_config(self) -> None:
        """Have what was assigned to the config act; raises UserError for what the trainer was built with."""
        self.fill_in_config()
        now = settings(self.config)
        changed = {name for name, value in now.items() if name not in self.applied or self.applied[name] != value}
        for name in sorted(changed & FIXED.keys()):
            raise UserError(
                f"config.{name} was {self.applied.get(name)!r} when the trainer was built, and {now[name]!r} comes too "
                f"late: {FIXED[name]}"
            )
        self.config.check()
        loader_rows = getattr(self, "dataloader_rows", self.config.batch_size)
        require(
            self.config.batch_size == loader_rows,
            f"config.batch_size is {self.config.batch_size}, but the dataloader gives {loader_rows} rows; make another "
            "one: trainer.dataloader = trainer.prepare_dataloader(trainer.dataset, collator)",
        )
        if "learning_rate" in changed:
            require(
                not self.optimizer_is_given,
                "config.learning_rate was set, but the optimizer was given; set the lr of its param_groups",
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate
        for name in {"target", "horizon"} & changed:
            if hasattr(self.kl_ctl, name):
                setattr(self.kl_ctl, name, now[name])
        if changed:
            self.native.config = self.native.epochs.config = self.config.to_native(self.accelerator.num_processes)
        self.applied = now

    def check_scheduler(self) -> None:
        """Raise UserError for a scheduler that moves the learning rate of another optimizer."""
        theirs = getattr(getattr(self.lr_scheduler, "scheduler", None), "optimizer", None)
        require(
            theirs is None or bare(theirs) is bare(self.optimizer),
            "lr_scheduler moves the learning rate of another optimizer than trainer.optimizer; make it of that one",
        )


def settings(config: PPOConfig) -> dict[str, Any]:
    """The values of all fields, as they are now."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(PPOConfig)}
