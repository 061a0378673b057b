"""What scripts read from a classic trainer and its config, and assign to them: it acts on the next step, or raises."""

import copy
from dataclasses import dataclass

import pytest
import torch
from tiny_classic import RESPONSES, SMALL, make_trainer, parameters, prompt_ids
from transformers import HfArgumentParser

import rlhf
from rlhf import AdaptiveKLController, AutoModelForCausalLMWithValueHead, FixedKLController, PPOConfig
from rlhf.errors import UserError

SCORES = [1.0, 0.0, 2.0, -1.0]


@pytest.fixture
def folder(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture
def queries(folder):
    return prompt_ids(folder)


@pytest.fixture
def trainer(folder):
    return make_trainer(folder, learning_rate=1e-3)


@pytest.fixture
def step(queries):
    """One step; returns how far the parameters moved, at most."""

    def run(trainer, scores=tuple(SCORES)):
        before = parameters(trainer)
        trainer.stats = trainer.step(queries, RESPONSES, list(scores))
        return max(float((p - before[name]).abs().max()) for name, p in parameters(trainer).items())

    return run


# ---------------------------------------------------------------- learning rates, optimizer, scheduler


def test_learning_rates_of_the_optimizer_act(trainer, step):
    assert step(trainer) == pytest.approx(1e-3, rel=0.01)
    assert len(trainer.optimizer.param_groups) == 1  # as in TRL, so that the first group is all there is
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    assert step(trainer) == 0.0
    assert trainer.stats["ppo/learning_rate"] == 0.0
    trainer.config.learning_rate = 1e-4
    assert 0 < step(trainer) < 2e-4
    assert trainer.stats["ppo/learning_rate"] == 1e-4


def test_a_scheduler_on_the_trainers_optimizer_acts(trainer, step):
    """Stepped by the script, or handed to the trainer."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda n: float(n == 0))
    assert step(trainer) > 0
    scheduler.step()
    assert step(trainer) == 0.0
    trainer.optimizer.param_groups[0]["lr"] = 1e-3
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda n: float(n == 0))
    assert step(trainer) > 0
    assert step(trainer) == 0.0


def test_another_optimizer_takes_over(trainer, step):
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
    assert step(trainer) == 0.0
    trainer.optimizer = torch.optim.SGD(trainer.model.v_head.parameters(), lr=1e-2)
    before = parameters(trainer)
    assert step(trainer) > 0
    moved = {name for name, p in parameters(trainer).items() if not torch.equal(p, before[name])}
    assert moved == {"wrapper.v_head.summary.weight", "wrapper.v_head.summary.bias"}
    trainer.config.learning_rate = 1.0
    with pytest.raises(UserError, match=r"config\.learning_rate was set, but the optimizer was given"):
        step(trainer)


def test_an_optimizer_of_another_model_is_refused(trainer, folder, step):
    other = copy.deepcopy(trainer.model)
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(UserError, match="optimizer has none of the parameters that are trained"):
        trainer.optimizer = foreign
    with pytest.raises(UserError, match="optimizer has none of the parameters that are trained"):
        make_trainer(folder, optimizer=foreign)
    trainer.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(foreign)
    with pytest.raises(UserError, match="lr_scheduler moves the learning rate of another optimizer"):
        step(trainer)


def test_an_optimizer_needs_no_more_than_step_and_zero_grad(folder, step):
    """Neither `set_to_none` nor a state."""

    class Plain:
        def __init__(self, model):
            self.param_groups = [{"params": list(model.parameters()), "lr": 0.1}]

        def zero_grad(self):
            for parameter in self.param_groups[0]["params"]:
                parameter.grad = None

        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    parameter.data -= self.param_groups[0]["lr"] * parameter.grad

    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    trainer = make_trainer(folder, model=model, optimizer=Plain(model))
    assert step(trainer) > 0
    assert trainer.stats["ppo/learning_rate"] == 0.1


# ---------------------------------------------------------------- model, reference, controller


def test_another_reference_counts_from_the_next_step_on(trainer, step, folder):
    step(trainer)
    first = trainer.ref_model  # made of the model as it was
    step(trainer)
    assert abs(trainer.stats["objective/kl"]) > 1e-3
    trainer.ref_model = copy.deepcopy(trainer.model)
    step(trainer)
    assert trainer.stats["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    trainer.ref_model = first
    step(trainer)
    assert abs(trainer.stats["objective/kl"]) > 1e-3
    assert not any(p.requires_grad for p in trainer.ref_model.parameters())
    with pytest.raises(UserError, match="ref_model is None, but the model has no adapters to turn off"):
        trainer.ref_model = None
    with pytest.raises(UserError, match="ref_model has the weights of model itself"):
        trainer.ref_model = trainer.model


def test_the_reference_of_adapters(folder, step):
    trainer = make_trainer(folder, peft=True, learning_rate=1e-2)
    assert trainer.ref_model is None
    assert trainer.is_peft_model
    assert trainer.config.is_peft_model
    step(trainer)
    trainer.ref_model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    step(trainer)
    given = trainer.stats["objective/kl"]
    trainer.ref_model = None
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    step(trainer)
    without = trainer.stats["objective/kl"]
    assert given != 0.0 != without
    with trainer.optional_peft_ctx():
        assert trainer.model.pretrained_model.active_adapter


def test_the_model_stays(trainer):
    trainer.model = trainer.accelerator.unwrap_model(trainer.model)  # the same one
    with pytest.raises(UserError, match="model cannot be replaced"):
        trainer.model = copy.deepcopy(trainer.model)
    with pytest.raises(UserError, match="accelerator cannot be replaced"):
        trainer.accelerator = None


def test_the_kl_coefficient(trainer, step):
    assert trainer.kl_ctl.value == 0.2
    step(trainer)
    trainer.kl_ctl.value = 0.7
    step(trainer)
    assert trainer.stats["objective/kl_coef"] == 0.7
    assert trainer.kl_ctl.value != 0.7  # adaptive
    trainer.kl_ctl = FixedKLController(0.5)
    step(trainer)
    step(trainer)
    assert trainer.stats["objective/kl_coef"] == trainer.kl_ctl.value == 0.5


def test_a_controller_of_ones_own(trainer, step):
    class Doubling:
        value = 0.1

        def update(self, current, n_steps):
            assert n_steps == 4
            self.value *= 2

    trainer.kl_ctl = mine = Doubling()
    step(trainer)
    step(trainer)
    assert trainer.stats["objective/kl_coef"] == 0.2
    assert trainer.kl_ctl is mine
    assert mine.value == 0.4
    with pytest.raises(UserError, match="kl_ctl is a float; it must have `value`"):
        trainer.kl_ctl = 0.3


def test_controllers_go_by_trls_names():
    adaptive = AdaptiveKLController(init_kl_coef=0.2, target=6.0, horizon=100)
    adaptive.update(current := 9.0, 10)
    assert current > adaptive.target
    assert adaptive.value == pytest.approx(0.2 * (1 + 0.2 * 10 / 100))
    fixed = FixedKLController(kl_coef=0.3)
    fixed.update(100.0, 10)
    assert fixed.value == 0.3


def test_the_device(trainer):
    assert trainer.current_device == torch.device("cpu")
    trainer.current_device = "cpu"
    with pytest.raises(UserError, match="current_device is cuda:0, but the model is on cpu"):
        trainer.current_device = torch.device("cuda:0")


# ---------------------------------------------------------------- the config


def test_a_config_can_be_assigned_to_and_subclassed():
    @dataclass
    class MyConfig(PPOConfig):
        my_reward: str = "length"
        my_rate: float = 0.5

    config = MyConfig(batch_size=8, mini_batch_size=4, my_reward="commas")
    config.my_rate = 0.25
    config.mini_batch_size = 2
    assert (config.backward_batch_size, config.global_batch_size, config.my_rate) == (2, 8, 0.25)
    assert config.to_dict()["my_reward"] == "commas"
    assert PPOConfig(tracker_kwargs={"wandb": {"name": "x"}}).to_dict()["tracker_kwargs/wandb/name"] == "x"


def test_a_config_from_the_command_line():
    [config] = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(
        ["--learning_rate", "1e-3", "--batch_size", "8", "--mini_batch_size", "4", "--early_stopping"]
    )
    assert (config.learning_rate, config.batch_size, config.early_stopping) == (1e-3, 8, True)


def test_the_trainer_fills_in_the_config(folder):
    trainer = make_trainer(folder)
    config = trainer.config
    assert (config.world_size, config.is_peft_model, config.is_encoder_decoder) == (1, False, False)
    assert (config.global_batch_size, config.global_backward_batch_size) == (4, 4)
    assert make_trainer(folder).config == config


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("backward_batch_size", 4, "PPOConfig.backward_batch_size cannot be set: it follows from batch_size"),
        ("learning_rates", 1.0, "PPOConfig has no setting 'learning_rates'"),
    ],
)
def test_an_assignment_that_nothing_reads_is_refused(name, value, line):
    with pytest.raises(UserError, match=line):
        setattr(PPOConfig(), name, value)


def test_settings_act_on_the_next_step(trainer, step):
    trainer.config.ppo_epochs = 3
    trainer.config.kl_penalty = "abs"
    trainer.config.mini_batch_size = 2
    trainer.config.cliprange, trainer.config.lam, trainer.config.target = 0.1, 0.5, 3.0
    trainer.config.ratio_threshold = 1e9  # none of the steps is to be skipped
    step(trainer)
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {6}
    assert trainer.kl_ctl.target == 3.0
    ours = trainer.native.epochs.config
    assert (ours.clip_range, ours.gae_lambda, ours.kl_estimator) == (0.1, 0.5, "abs")
    trainer.config = PPOConfig(**SMALL, learning_rate=1e-5)
    assert 0 < step(trainer) < 1e-4
    trainer.config.batch_size = 3
    with pytest.raises(UserError, match="batch_size 3 is not divisible by mini_batch_size"):
        step(trainer)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("init_kl_coef", 0.5, r"config.init_kl_coef was 0.2 .* and 0.5 comes too late: assign trainer.kl_ctl.value"),
        ("adap_kl_ctrl", False, "assign an AdaptiveKLController or FixedKLController to trainer.kl_ctl"),
        ("seed", 3, "comes too late: call rlhf.set_seed"),
        ("log_with", "tensorboard", "comes too late: make a new PPOTrainer"),
        ("gradient_checkpointing", True, "call trainer.model.gradient_checkpointing_enable"),
        ("accelerator_kwargs", {"cpu": True}, "comes too late: make a new PPOTrainer"),
    ],
)
def test_settings_that_come_too_late(trainer, step, name, value, line):
    setattr(trainer.config, name, value)
    before = parameters(trainer)
    with pytest.raises(UserError, match=line):
        step(trainer)
    assert all(torch.equal(p, before[n]) for n, p in parameters(trainer).items())


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        ({"mixed_precision": "bf16"}, "accelerator_kwargs mixed_precision='bf16' is not applied: load the model with"),
        ({"gradient_accumulation_steps": 4}, "set PPOConfig.gradient_accumulation_steps"),
        ({"dynamo_backend": "inductor"}, "compile the model yourself"),
        ({"log_with": "wandb"}, "set PPOConfig.log_with"),
    ],
)
def test_accelerate_is_told_nothing_that_does_not_act(folder, kwargs, line):
    with pytest.raises(UserError, match=line):
        make_trainer(folder, accelerator_kwargs=kwargs)
    make_trainer(folder, accelerator_kwargs={"mixed_precision": "no", "step_scheduler_with_optimizer": False})


def test_mixed_precision_of_the_launcher_is_refused(folder, monkeypatch):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    try:
        with pytest.raises(UserError, match="accelerate was told mixed_precision 'bf16', which is not applied"):
            make_trainer(folder)
    finally:
        AcceleratorState._reset_state()


def test_a_minibatch_whose_ratio_is_too_large_is_skipped(trainer, step):
    trainer.config.ratio_threshold = 0.5  # the first minibatch has ratio 1
    with pytest.warns(UserWarning, match=r"its mean ratio 1.00 is above ratio_threshold 0.5"):
        assert step(trainer) == 0.0
    trainer.config.ratio_threshold = 10.0
    assert step(trainer) > 0


def test_the_full_kl(folder, step):
    """Zero at first, never negative, close to its estimate; and the reward is scored with it."""
    full, estimated = (
        make_trainer(folder, learning_rate=1e-3, kl_penalty="full"),
        make_trainer(folder, learning_rate=1e-3),
    )
    step(full)
    assert full.stats["ppo/mean_non_score_reward"] == pytest.approx(0.0, abs=1e-6)
    step(full)
    step(estimated)
    step(estimated)
    assert full.stats["ppo/mean_non_score_reward"] < -1e-6
    assert full.stats["ppo/mean_non_score_reward"] != estimated.stats["ppo/mean_non_score_reward"]


def test_names_that_scripts_import():
    for name in ("set_seed", "respond_to_batch", "LengthSampler", "BestOfNSampler", "create_reference_model"):
        assert callable(getattr(rlhf, name))
    rlhf.set_seed(5)
    first = torch.rand(3), rlhf.LengthSampler(min_value=2, max_value=900)()
    rlhf.set_seed(5)
    assert torch.equal(first[0], torch.rand(3))
    assert rlhf.LengthSampler(2, 900)() == first[1]
    with pytest.raises(UserError, match="min_value is 3; it must be less than max_value 3"):
        rlhf.LengthSampler(3, 3)
