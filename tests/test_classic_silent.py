"""What passed without a word: in the classic loop, and in a loop or callbacks of one's own."""

import ast
import dataclasses
import re
import warnings
from pathlib import Path

import pytest
import torch
from tiny_classic import PROMPTS, RESPONSES, SMALL, TOKEN_REWARDS, make_trainer, parameters, prompt_ids
from tiny_runs import make_config
from tiny_runs import make_trainer as make_native
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlhf
import rlhf.config
from rlhf import AutoModelForCausalLMWithValueHead, BestOfNSampler, PPOConfig, PPOTrainer, respond_to_batch
from rlhf.classic.watching import in_their_words
from rlhf.config import LoraConfig
from rlhf.errors import UserError
from rlhf.models.load import lora_adapters
from rlhf.ppo.trainer import Callback
from rlhf.stages.ppo import build_trainer
from rlhf.tracking.mirrors import TensorBoard
from rlhf.watch.watch import Finding

SAMPLING = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": 4}
SCORES = [1.0, 0.0, 2.0, -1.0]


@pytest.fixture
def folder(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture
def queries(folder):
    return prompt_ids(folder)


@pytest.fixture
def model(folder):
    torch.manual_seed(0)
    return AutoModelForCausalLMWithValueHead.from_pretrained(folder)


@pytest.fixture
def adapters(folder, model):
    settings = lora_adapters(LoraConfig(r=4), model.pretrained_model)
    return AutoModelForCausalLMWithValueHead.from_pretrained(folder, peft_config=settings)


# ---------------------------------------------------------------- loops and callbacks of one's own


def test_updates_past_the_end_of_a_linear_schedule_are_refused(tiny_models, pairs):
    trainer = make_native(tiny_models, pairs, num_updates=1)
    trainer.update()
    before = [p.detach().clone() for _, p in trainer.policy.trainable]
    with pytest.raises(UserError, match=r"num_updates is 1 and all of them are done.*or set lr_schedule: constant"):
        trainer.update()
    assert all(torch.equal(p, old) for (_, p), old in zip(trainer.policy.trainable, before, strict=True))
    trainer = make_native(tiny_models, pairs, num_updates=1, lr_schedule="constant")
    assert [trainer.update().metrics["policy/learning_rate"] for _ in range(2)] == [1e-2, 1e-2]


class Marks(Callback):
    """Adds a metric of its own."""

    def after_update(self, trainer, update):
        return update._replace(metrics=update.metrics | {"mine": 7.0})


class Gives(Callback):
    """Returns something else after a phase."""

    def __init__(self, phase, change):
        setattr(self, phase, lambda trainer, *given: change(given[-1]))


def test_what_after_update_returns_takes_the_place_of_the_update(tiny_models, pairs):
    trainer = make_native(tiny_models, pairs)
    trainer.callbacks = [Marks()]
    assert trainer.update().metrics["mine"] == 7.0


@pytest.mark.parametrize(
    ("phase", "change", "message"),
    [
        ("after_advantages", lambda rollout: rollout.rows(torch.arange(6)), "returned 6 rows and was given 8"),
        ("after_scoring", lambda scores: dataclasses.replace(scores, total=[0.0]), "returned 1 rows and was given 8"),
        ("after_update", lambda update: update.metrics, "returned a dict; it must be a Update"),
    ],
)
def test_what_a_callback_returns_has_to_fit(tiny_models, pairs, phase, change, message):
    trainer = make_native(tiny_models, pairs)
    trainer.callbacks = [Gives(phase, change)]
    with pytest.raises(UserError, match=rf"Gives\.{phase} {message}"):
        trainer.update()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Marks], "callbacks holds the class Marks, not an instance"),
        ([print], "callbacks holds a builtin_function_or_method"),
        (Marks(), "callbacks is .*Marks.*; it must be a list"),
    ],
)
def test_callbacks_are_instances(tiny_models, pairs, callbacks, message):
    config = make_config(tiny_models["gpt2"], pairs)
    with pytest.raises(UserError, match=message):
        build_trainer(config, rlhf.rewards.RewardSum.from_specs(config.rewards), callbacks=callbacks)


def test_a_method_that_nothing_calls_is_refused():
    methods = {"after_advantage": lambda self, trainer, rollout: None}
    with pytest.raises(UserError, match=r"Mine\.after_advantage would never be called; Callback has after_sampling, "):
        type("Mine", (Callback,), methods)
    with pytest.raises(UserError, match=r"Mine\.on_step_end"):
        type("Mine", (Marks,), {"on_step_end": lambda self: None})
    type("Mine", (Marks,), {"after_steps": 3, "_after_advantage": lambda self: None})


# ---------------------------------------------------------------- steps


@pytest.mark.filterwarnings("error")
def test_skipped_steps_are_counted_and_said(folder, queries):
    trainer = make_trainer(folder, ppo_epochs=2)
    stats = trainer.step(queries, RESPONSES, SCORES)
    assert (stats["ppo/optimizer_steps"], stats["ppo/skipped_steps"]) == (2.0, 0.0)
    handle = trainer.model.v_head.summary.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.warns(UserWarning, match="update 2: 2 of 2 optimizer steps were skipped"):
        stats = trainer.step(queries, RESPONSES, SCORES)
    assert (stats["ppo/optimizer_steps"], stats["ppo/skipped_steps"]) == (0.0, 2.0)
    handle.remove()


def test_the_best_mean_counts_rewards_per_token(folder, queries, monkeypatch):
    trainer = make_trainer(folder, push_to_hub_if_best_kwargs={"repo_id": "me/best"})
    pushed = []
    monkeypatch.setattr(trainer, "push_to_hub", lambda **options: pushed.append(trainer.highest_reward))
    trainer.step(queries, RESPONSES, TOKEN_REWARDS)
    assert pushed == [pytest.approx((6.0 + 2.5 + 0.0 - 1.0) / 4)]


def test_a_generation_for_evaluation_does_not_put_the_query_back(folder, queries):
    a, b = make_trainer(folder), make_trainer(folder)
    torch.manual_seed(0)
    bare = a.generate(queries, return_prompt=False, **SAMPLING)
    torch.manual_seed(0)
    whole = b.generate(queries, **SAMPLING)
    b.generate(queries[:1], return_prompt=False, **SAMPLING)
    a.step(queries, bare, SCORES)
    b.step(queries, whole, SCORES)
    for name, parameter in parameters(a).items():
        assert torch.equal(parameter, parameters(b)[name]), name


def test_a_second_copy_of_the_query_from_elsewhere_is_said_once(folder, queries):
    trainer, queries = make_trainer(folder), [*queries[:2], queries[0], queries[3]]  # the third has one token
    copies = [torch.cat([q, r]) for q, r in zip(queries, RESPONSES, strict=True)]
    with pytest.warns(UserWarning, match="every response begins with its whole query"):
        stats = trainer.step(queries, copies, SCORES)
    assert stats["tokens/responses_dist"].tolist() == [len(row) for row in copies]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.step(queries, copies, SCORES)
        ones = [q[:1] for q in queries]
        make_trainer(folder).step(ones, [torch.cat([q, r]) for q, r in zip(ones, RESPONSES, strict=True)], SCORES)


def test_another_distribution_is_said_once_for_the_same_settings(folder, queries):
    trainer = make_trainer(folder)
    for top_k in (5, 6):
        with pytest.warns(UserWarning, match=f"generate samples with top_k={top_k}"):
            trainer.generate(queries, **SAMPLING | {"top_k": top_k})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.generate(queries, **SAMPLING | {"top_k": 5})


def test_weights_that_were_frozen_or_unfrozen_later(folder, queries, adapters):
    trainer = make_trainer(folder, model=adapters)
    name, adapter = next((n, p) for n, p in adapters.named_parameters() if "lora_A" in n)
    adapter.requires_grad_(False)
    for act in (lambda: trainer.generate(queries, **SAMPLING), lambda: trainer.step(queries, RESPONSES, SCORES)):
        with pytest.raises(UserError, match=rf"{re.escape(name)} was frozen after PPOTrainer was built"):
            act()
    adapter.requires_grad_(True)
    trainer.step(queries, RESPONSES, SCORES)
    next(p for n, p in adapters.named_parameters() if "lora_" not in n).requires_grad_(True)
    with pytest.raises(UserError, match="was unfrozen after"):
        trainer.step(queries, RESPONSES, SCORES)


# ---------------------------------------------------------------- the watch


def test_the_watch_follows_the_target(folder, queries):
    trainer = make_trainer(folder)
    trainer.step(queries, RESPONSES, SCORES)
    assert trainer.watch.limits.adaptive_kl_target == 6.0
    trainer.config.target = 2.0
    trainer.step(queries, RESPONSES, SCORES)
    assert trainer.watch.limits.adaptive_kl_target == 2.0
    trainer.kl_ctl = rlhf.FixedKLController(0.1)
    trainer.step(queries, RESPONSES, SCORES)
    assert trainer.watch.limits.adaptive_kl_target is None


def test_step_says_it_in_the_words_of_the_classic_loop(folder, queries, monkeypatch):
    trainer = make_trainer(folder)
    found = [Finding("kl_blow_up", "raise kl_coef, or set adaptive_kl_target")]
    monkeypatch.setattr(trainer.watch, "check", lambda step, metrics: found)
    with pytest.warns(UserWarning, match="^raise init_kl_coef, or set adap_kl_ctrl and target$"):
        trainer.step(queries, RESPONSES, SCORES)


def test_the_watch_names_settings_that_there_are():
    """Every string in the sources of the messages, f-strings put together."""
    sources = [ast.parse(Path(f"rlhf/watch/{name}.py").read_text(encoding="utf-8")) for name in ("symptoms", "watch")]
    texts = [
        "".join(part.value if isinstance(part, ast.Constant) else "N" for part in node.values)
        for source in sources
        for node in ast.walk(source)
        if isinstance(node, ast.JoinedStr)
    ]
    assert len(texts) > 9
    ours = {field.name for field in dataclasses.fields(rlhf.config.PPOConfig)}
    foreign = sorted(name for name in ours - {f.name for f in dataclasses.fields(PPOConfig)} if "_" in name)
    pattern = re.compile(rf"\b({'|'.join(foreign)}|samples\.jsonl|(sampling|watch|value_warmup)\.\w+|advantage:)")
    assert sum(bool(pattern.search(text)) for text in texts) > 5
    for text in map(in_their_words, texts):
        assert not pattern.search(text), text
    assert in_their_words("cut off at sampling.max_new_tokens 9") == "cut off at the model's context length 9"


# ---------------------------------------------------------------- settings under their own names


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lam": 1.2}, "lam is 1.2; it must be between 0 and 1"),
        ({"gamma": -0.1}, "gamma is -0.1; it must be between"),
        ({"ppo_epochs": 0}, "ppo_epochs is 0; it must be greater than 0"),
        ({"cliprange": 0.0}, "cliprange is 0.0; it must be greater"),
        ({"cliprange_value": -1.0}, "cliprange_value is -1.0; it must be greater"),
        ({"init_kl_coef": -0.1}, "init_kl_coef is -0.1; it must be at least 0"),
        ({"target": 0.0}, "target is 0.0; it must be greater"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be a finite number"),
        ({"horizon": float("inf")}, "horizon is inf; it must be a finite number"),
    ],
)
def test_a_setting_is_refused_by_its_own_name(setting, message):
    with pytest.raises(UserError, match=f"^{message}"):
        PPOConfig(**setting)


def test_a_setting_that_does_not_exist():
    with pytest.raises(UserError, match=r"PPOConfig has no setting total_episodes; .*migrate-from-trl\.md"):
        PPOConfig(total_episodes=100)

    @dataclasses.dataclass(kw_only=True)
    class Mine(PPOConfig):
        extra: int = 0

    assert dataclasses.replace(Mine(extra=3), seed=4).extra == 3
    with pytest.raises(UserError, match="no setting other"):
        Mine(other=3)


# ---------------------------------------------------------------- what the trainer is built of


def test_arguments_of_the_trainer_that_there_are_not(folder, model):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = PPOConfig(**SMALL)
    with pytest.raises(UserError, match=r"no argument processing_class; TRL 0\.12.*migrate-from-trl\.md"):
        PPOTrainer(config, model, processing_class=tokenizer)
    with pytest.raises(UserError, match="no argument args, processing_class, reward_model"):
        PPOTrainer(args=config, processing_class=tokenizer, model=model, reward_model=model)
    with pytest.raises(UserError, match="tokenizer is a str; it must be the model's tokenizer"):
        PPOTrainer(config, model, tokenizer="gpt2")
    with pytest.raises(UserError, match="ref_model is 'gpt2'; it must be a model"):
        PPOTrainer(config, model, "gpt2", tokenizer)
    trainer = PPOTrainer(config, model, tokenizer=tokenizer)
    with pytest.raises(UserError, match="ref_model is a int"):
        trainer.ref_model = 3
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="tokenizer has no EOS"):
        PPOTrainer(config, model, tokenizer=tokenizer)


def test_a_dataset_without_a_whole_batch(folder):
    with pytest.raises(UserError, match="dataset has 3 rows, fewer than batch_size 4"):
        make_trainer(folder, dataset=[{"query": text} for text in PROMPTS[:3]])
    assert len(make_trainer(folder, dataset=PROMPTS).dataloader) == 1


@pytest.mark.parametrize("name", ["TextEnvironment", "PreTrainedModelWrapper"])
def test_names_that_are_gone(name):
    with pytest.raises(UserError, match=rf"rlhf has no {name}.*migrate-from-trl\.md"):
        getattr(rlhf, name)


# ---------------------------------------------------------------- what a step is given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1.0, None, 0.0, 0.0]}, r"scores\[1\] is None; it must be a number"),
        ({"scores": [{"score": 1.0}, 0.0, 0.0, 0.0]}, r"scores\[0\] is \{'score': 1.0\}; it must be a number"),
        ({"scores": ["good", 0.0, 0.0, 0.0]}, r"scores\[0\] is 'good'"),
        ({"scores": None}, "scores is None; it must be a list"),
        ({"response_masks": [None] * 4}, r"response_masks\[0\] is None; it must be a row of 0 and 1"),
        ({"responses": [*RESPONSES[:3], [999999]]}, r"responses\[3\] holds token id 999999, but the model knows"),
        ({"responses": [*RESPONSES[:3], [5, -100]]}, r"responses\[3\] holds -100, no token id"),
        ({"queries": [[5]] * 3 + [[2**40]]}, r"queries\[3\] holds 1099511627776, no token id"),
    ],
)
def test_rows_that_are_no_rows(folder, queries, change, message):
    trainer = make_trainer(folder)
    before = parameters(trainer)
    with pytest.raises(UserError, match=f"^{message}"):
        trainer.step(**{"queries": queries, "responses": RESPONSES, "scores": SCORES} | change)
    assert all(torch.equal(p, before[name]) for name, p in parameters(trainer).items())


def test_what_generate_is_given(folder, queries):
    trainer = make_trainer(folder)
    with pytest.raises(UserError, match=r"query_tensor\[1\] holds token id 999999"):
        trainer.generate([[5], [999999]], **SAMPLING)
    trainer.generate(queries, stopping_criteria=None, generation_config=None, **SAMPLING)


# ---------------------------------------------------------------- sampling helpers


def test_respond_to_batch_samples_the_plain_softmax(model, folder):
    ids = torch.tensor([[31, 40, 52]] * 64)
    torch.manual_seed(0)
    plain = respond_to_batch(model, ids, 3)
    own = model.pretrained_model.generation_config
    own.temperature, own.repetition_penalty, own.suppress_tokens, own.eos_token_id = 0.05, 9.0, list(range(300)), 5
    torch.manual_seed(0)
    assert torch.equal(respond_to_batch(model, ids, 3), plain)
    assert model.pretrained_model.generation_config is own
    assert plain.unique().numel() > 20


@pytest.mark.parametrize("scores", [[1.0, float("nan"), 0.0, 0.0], [1.0], [1.0] * 5])
def test_best_of_n_wants_a_finite_score_for_each_text(folder, model, scores):
    sampler = BestOfNSampler(model, AutoTokenizer.from_pretrained(folder), lambda texts: scores, lambda: 3)
    with pytest.raises(UserError, match=r"queries_to_scores returned \[1.0.*it must be 4 finite numbers"):
        sampler.generate([31, 40])


# ---------------------------------------------------------------- loading and saving


@pytest.mark.parametrize(
    "options", [{"torch_dtype": torch.bfloat16}, {"load_in_8bit": True}, {"is_trainable": False}, {"nonsense": 3}]
)
def test_options_beside_a_model_that_is_loaded(folder, options):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(UserError, match=f"from_pretrained got {next(iter(options))}.* beside a model that is loaded"):
        AutoModelForCausalLMWithValueHead.from_pretrained(model, **options)
    AutoModelForCausalLMWithValueHead.from_pretrained(model, load_in_8bit=False, device_map=None)


@pytest.mark.parametrize("option", [{"push_to_hub": True}, {"repo_id": "me/mine"}, {"nonsense": 3}])
def test_a_model_does_not_save_what_it_does_not_know(adapters, model, tmp_path, option):
    for saved in (adapters, model):
        with pytest.raises(UserError, match=rf"save_pretrained got {next(iter(option))}=.*model\.push_to_hub\(repo_id"):
            saved.save_pretrained(tmp_path, **option)
    assert list(tmp_path.iterdir()) == []


def test_the_trainer_saves_for_old_peft(folder, adapters, tmp_path):
    trainer = make_trainer(folder, model=adapters)
    trainer.save_pretrained(tmp_path / "new")
    trainer.save_pretrained(tmp_path / "old", trl_0_11=True)
    new, old = ((tmp_path / name / "adapter_config.json").read_text() for name in ("new", "old"))
    assert len(old) < len(new)
    adapters.save_pretrained(tmp_path / "model", trl_0_11=True)
    assert (tmp_path / "model" / "adapter_config.json").read_text() == old
    with pytest.raises(UserError, match="save_pretrained got repo_id, private, without effect unless push_to_hub=True"):
        trainer.save_pretrained(tmp_path / "x", repo_id="me/mine", private=True)
    assert not (tmp_path / "x").exists()


def test_the_state_of_accelerate_is_refused(folder, tmp_path):
    accelerator = make_trainer(folder).accelerator
    for act in (accelerator.save_state, accelerator.load_state):
        with pytest.raises(UserError, match=r"leave out the model.*trainer\.save_pretrained"):
            act(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_nothing_of_an_abandoned_attempt(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed_at, steps, value in ((None, (1, 2, 3), 1.0), (None, (1,), 2.0), (1, (2,), 3.0)):
        board = TensorBoard(tmp_path, {}, resumed_at)
        for step in steps:
            board.log({"score": value}, step)
        board.finish(failed=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("score")] == [(1, 2.0), (2, 3.0)]
