"""Shapes of script that people run on TRL 0.11's PPOTrainer, on very small models; but for the imports unchanged."""

import math
import warnings

import pytest
import torch
from datasets import Dataset
from tiny_classic import PROMPTS
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    HfArgumentParser,
    Trainer,
    TrainerControl,
    TrainerState,
    get_scheduler,
    pipeline,
)
from wandb_files import finished_wandb, history

from rlhf import (
    AutoModelForCausalLMWithValueHead,
    LengthSampler,
    PPOConfig,
    PPOTrainer,
    create_reference_model,
    set_seed,
)

pytestmark = pytest.mark.filterwarnings("ignore:generate samples", "ignore:dataset columns")


@pytest.fixture
def folder(tiny_models):
    return str(tiny_models["gpt2"])


@pytest.fixture
def tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def moved(trainer, before):
    return any(not torch.equal(p, before[name]) for name, p in weights(trainer).items())


def test_the_sentiment_notebook(folder, tokenizer, tmp_path):
    """Reviews cut to a drawn length, a classifier's pipeline as the reward, one query at a time, a table of samples."""
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    classifier.config.pad_token_id = tokenizer.pad_token_id
    classifier.config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    sentiment = pipeline("sentiment-analysis", model=str(tmp_path / "classifier"), device="cpu")

    config = PPOConfig(
        model_name=folder, learning_rate=1.41e-4, log_with="tensorboard", batch_size=4, mini_batch_size=2,
        project_kwargs={"logging_dir": str(tmp_path / "logs")},
    )  # fmt: skip
    input_size = LengthSampler(2, 8)
    dataset = Dataset.from_dict({"text": [text * 3 for text in PROMPTS * 2], "label": [0, 1] * 4})
    dataset = dataset.rename_columns({"text": "review"})

    def tokenize(sample):
        sample["input_ids"] = tokenizer.encode(sample["review"])[: input_size()]
        sample["query"] = tokenizer.decode(sample["input_ids"])
        return sample

    dataset = dataset.map(tokenize, batched=False)
    dataset.set_format(type="torch")

    def collator(data):
        return {key: [row[key] for row in data] for key in data[0]}

    model = AutoModelForCausalLMWithValueHead.from_pretrained(config.model_name)
    ref_model = AutoModelForCausalLMWithValueHead.from_pretrained(config.model_name)
    trainer = PPOTrainer(config, model, ref_model, tokenizer, dataset=dataset, data_collator=collator)
    device = trainer.accelerator.device
    output_length = LengthSampler(4, 9)
    before = weights(trainer)
    seen = 0
    for _epoch, batch in enumerate(trainer.dataloader):
        assert set(batch) == {"label", "input_ids", "query"}
        query_tensors = batch["input_ids"]
        response_tensors = []
        for query in query_tensors:
            length = output_length()
            response = trainer.generate(
                query, min_length=-1, top_k=0.0, top_p=1.0, do_sample=True, pad_token_id=tokenizer.eos_token_id,
                max_new_tokens=length,
            )  # fmt: skip
            response_tensors.append(response.squeeze()[-length:])
        batch["response"] = [tokenizer.decode(r.squeeze()) for r in response_tensors]
        texts = [q + r for q, r in zip(batch["query"], batch["response"], strict=True)]
        outputs = sentiment(texts, top_k=None, function_to_apply="none", batch_size=4)
        positive = [next(o["score"] for o in output if o["label"] == "POSITIVE") for output in outputs]
        rewards = [torch.tensor(score) for score in positive]
        stats = trainer.step(query_tensors, response_tensors, rewards)
        trainer.log_stats(stats, batch, rewards)
        assert stats["ppo/mean_scores"] == pytest.approx(sum(positive) / 4, rel=1e-5)
        seen += 1
    assert seen == 2
    assert moved(trainer, before)
    assert device.type == "cpu"
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "trained").num_parameters() > 0


def test_a_script_with_adapters_and_a_reward_model(folder, tokenizer, tmp_path):
    """Arguments from the command line, LoRA, Adam of its own, scores minus a baseline, checkpoints every few steps."""
    from peft import LoraConfig

    [config] = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(
        [
            "--model_name", folder, "--learning_rate", "1e-3", "--batch_size", "4", "--mini_batch_size", "1",
            "--gradient_accumulation_steps", "4", "--ppo_epochs", "2", "--early_stopping", "--target_kl", "0.1",
            "--init_kl_coef", "0.2", "--seed", "0",
        ]
    )  # fmt: skip
    set_seed(config.seed)
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, bias="none", task_type="CAUSAL_LM", fan_in_fan_out=True)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(config.model_name, peft_config=lora)
    reward_model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    reward_model.config.pad_token_id = tokenizer.pad_token_id
    optimizer = torch.optim.Adam(filter(lambda p: p.requires_grad, model.parameters()), lr=config.learning_rate)
    dataset = [{"query": text, "input_ids": torch.tensor(tokenizer.encode(text))} for text in PROMPTS * 2]
    trainer = PPOTrainer(
        config, model, ref_model=None, tokenizer=tokenizer, dataset=dataset, optimizer=optimizer,
        data_collator=lambda data: {key: [row[key] for row in data] for key in data[0]},
    )  # fmt: skip
    before = weights(trainer)
    kwargs = {"top_k": 0.0, "top_p": 1.0, "do_sample": True, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": -1}
    for step, batch in enumerate(trainer.dataloader):
        responses = trainer.generate(
            batch["input_ids"], return_prompt=False, length_sampler=LengthSampler(4, 8), **kwargs
        )
        batch["response"] = tokenizer.batch_decode(responses, skip_special_tokens=True)
        texts = tokenizer(
            [q + r for q, r in zip(batch["query"], batch["response"], strict=True)], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            rewards = [score - 0.5 for score in reward_model(**texts).logits[:, 0]]
        stats = trainer.step(batch["input_ids"], responses, rewards)
        assert math.isfinite(stats["objective/kl"])
        if step % 1 == 0:
            trainer.save_pretrained(str(tmp_path / f"step_{step}"))
    assert moved(trainer, before)
    assert {"adapter_model.safetensors", "README.md"} <= {f.name for f in (tmp_path / "step_1").iterdir()}


def test_a_script_that_detoxifies(folder, tokenizer):
    """Half precision, shared layers, an Adam, prompts by hand, generation one by one at a fixed length."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(model)
    ref_model = create_reference_model(model, num_shared_layers=1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    config = PPOConfig(model_name=folder, learning_rate=1e-2, ppo_epochs=2, mini_batch_size=2, batch_size=4)
    trainer = PPOTrainer(config, model, ref_model=ref_model, tokenizer=tokenizer, optimizer=optimizer)
    before = weights(trainer)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert any(".h.0." in name for name in frozen)
    queries = [torch.tensor(tokenizer.encode(text)) for text in PROMPTS]
    responses = []
    for query in queries:
        response = trainer.generate(query, max_new_tokens=5, do_sample=True, top_k=0, min_length=-1)
        responses.append(response.squeeze()[-5:])
    stats = trainer.step(queries, responses, [torch.tensor(float(len(r))) for r in responses])
    assert math.isfinite(stats["ppo/loss/total"])
    assert moved(trainer, before)


def test_a_script_with_a_tool_in_the_loop(folder, tokenizer):
    """The policy asks, a tool answers in the middle of the response, the policy goes on; masks say who wrote what."""
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    trainer = PPOTrainer(PPOConfig(batch_size=2, mini_batch_size=1, learning_rate=1e-3), model, None, tokenizer)
    kwargs = {"do_sample": True, "top_k": 0, "max_new_tokens": 4, "return_prompt": False, "eos_token_id": -1}
    queries = [torch.tensor(tokenizer.encode(text)) for text in PROMPTS[:2]]
    answer = torch.tensor(tokenizer.encode("<button>"))
    before = weights(trainer)
    for _ in range(2):
        asked = trainer.generate(queries, **kwargs)
        so_far = [torch.cat([q, a, answer]) for q, a in zip(queries, asked, strict=True)]
        went_on = trainer.generate(so_far, **kwargs)
        responses = [torch.cat([a, answer, b]) for a, b in zip(asked, went_on, strict=True)]
        masks = [
            torch.cat([torch.ones_like(a), torch.zeros_like(answer), torch.ones_like(b)])
            for a, b in zip(asked, went_on, strict=True)
        ]
        rewards = [torch.tensor(1.0), torch.tensor(-1.0)]
        stats = trainer.step(queries, responses, rewards, masks)
    assert stats["tokens/responses_dist"].tolist() == [8, 8]
    assert moved(trainer, before)


def test_a_script_with_its_own_schedules(folder, tokenizer):
    """Learning rate and KL coefficient set by hand, statistics watched, the best model kept; no dataset."""
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    config = PPOConfig(batch_size=4, mini_batch_size=4, ppo_epochs=1, learning_rate=1e-3, adap_kl_ctrl=False)
    trainer = PPOTrainer(config=config, model=model, tokenizer=tokenizer)
    queries = tokenizer(PROMPTS, padding=True, return_tensors="pt").input_ids  # padded, as many scripts have it
    seen = []
    for step in range(3):
        for group in trainer.optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / 3)
        trainer.kl_ctl.value = 0.1 * (step + 1)
        responses = trainer.generate(list(queries), return_prompt=False, max_new_tokens=6, do_sample=True, top_k=0)
        rewards = [torch.tensor(float((r > 100).sum())) for r in responses]
        with warnings.catch_warnings(record=True) as said:
            stats = trainer.step(list(queries), responses, rewards)
        assert any("pad tokens" in str(warning.message) for warning in said) == (step == 0)
        seen.append((stats["ppo/learning_rate"], stats["objective/kl_coef"]))
        if stats["objective/kl"] > 1000:
            break
    assert seen == [(pytest.approx(1e-3 * (1 - n / 3)), pytest.approx(0.1 * (n + 1))) for n in range(3)]


def test_a_script_of_several_rounds_of_best_of_n_and_ppo(folder, tokenizer, tmp_path):
    """A trained folder is loaded again and trained on, its value head with it."""
    heads = []
    source = folder
    for turn in range(2):
        model = AutoModelForCausalLMWithValueHead.from_pretrained(source)
        heads.append(model.v_head.summary.weight.detach().clone())
        config = PPOConfig(batch_size=4, mini_batch_size=2, learning_rate=1e-3)
        trainer = PPOTrainer(config, model, create_reference_model(model), tokenizer)
        queries = [tokenizer.encode(text, return_tensors="pt")[0] for text in PROMPTS]
        responses = [trainer.generate(q, max_new_tokens=5, do_sample=True, top_k=0)[0][len(q) :] for q in queries]
        trainer.step(queries, responses, [torch.tensor(1.0 * n) for n in range(4)])
        trained = trainer.model.v_head.summary.weight.detach().clone()
        source = str(tmp_path / f"round_{turn}")
        trainer.save_pretrained(source)
    assert torch.equal(trained, AutoModelForCausalLMWithValueHead.from_pretrained(source).v_head.summary.weight)
    assert not torch.equal(*heads)


# ---------------------------------------------------------------- a library on top of it


class LibraryTrainer(PPOTrainer, Trainer):
    """As libraries wrap the class: beside transformers' Trainer, with optimizer, loop and forward pass of its own."""

    def __init__(self, args, model, reward_model, tokenizer, dataset, collator):
        config = PPOConfig(
            model_name="tiny", learning_rate=args["lr"], mini_batch_size=2, gradient_accumulation_steps=2,
            batch_size=4, ppo_epochs=2, max_grad_norm=1.0, seed=3, optimize_device_cache=True, target=6.0,
            use_score_scaling=True, use_score_norm=True, whiten_rewards=True,
            accelerator_kwargs={"step_scheduler_with_optimizer": False}, log_with=None,
            project_kwargs={"logging_dir": args["logs"]},
        )  # fmt: skip
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args["lr"])
        scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=4)
        PPOTrainer.__init__(
            self, config=config, model=model, ref_model=None, tokenizer=tokenizer, dataset=dataset,
            optimizer=optimizer, data_collator=collator, lr_scheduler=scheduler,
        )  # fmt: skip
        self.args, self.reward_model = args, reward_model
        self.current_device = torch.device("cpu")
        self.generation_config = GenerationConfig(
            pad_token_id=tokenizer.pad_token_id, eos_token_id=[tokenizer.eos_token_id], max_new_tokens=6,
            do_sample=True, top_k=0, top_p=1.0,
        )  # fmt: skip
        self.state, self.control = TrainerState(), TrainerControl()
        self.is_deepspeed_enabled = getattr(self.accelerator.state, "deepspeed_plugin", None) is not None
        self.amp_context = torch.autocast(self.current_device.type, enabled=False)
        self.reward_model = self.accelerator.prepare_model(self.reward_model, evaluation_mode=True)
        self.forward_passes = 0

    def library_train(self):
        self.state.is_world_process_zero = self.accelerator.is_main_process
        for batch in self.dataloader:
            self.model.eval()
            self.tokenizer.padding_side = "right"
            queries, responses = self.get_inputs(batch)
            rewards = self.get_rewards(queries, responses)
            self.model.train()
            self.stats = self.step(queries, responses, rewards)
            self.tokenizer.padding_side = "left"
            self.state.global_step += 1
        return self.stats

    @torch.no_grad()
    def get_inputs(self, batch):
        model = self.accelerator.unwrap_model(self.model)
        output = model.generate(generation_config=self.generation_config, **batch)
        query, response = batch["input_ids"], output[:, batch["input_ids"].size(-1) :]
        queries, responses = [], []
        for row in range(len(query)):
            first = int((query[row] != self.tokenizer.pad_token_id).nonzero()[0])
            own = (response[row] != self.tokenizer.pad_token_id).nonzero()
            length = 1 if len(own) == 0 else int(own[-1]) + 1
            queries.append(query[row, first:])
            responses.append(response[row, :length])
        return queries, responses

    @torch.no_grad()
    def get_rewards(self, queries, responses):
        batch = self.prepare_model_inputs(queries, responses)
        values = self.reward_model(**batch)[-1]
        return values.gather(dim=-1, index=(batch["attention_mask"].sum(dim=-1, keepdim=True) - 1)).float()

    def batched_forward_pass(self, model, queries, responses, model_inputs, return_logits=False, response_masks=None):
        self.forward_passes += 1
        all_logprobs, all_logits, all_values, all_masks = [], [], [], []
        size = self.config.mini_batch_size
        for start in range(0, len(queries), size):
            inputs = {key: value[start : start + size] for key, value in model_inputs.items()}
            with self.amp_context:
                logits, _, values = model(**inputs, return_dict=True, use_cache=False)
            logprobs = logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None]).squeeze(-1)
            masks = torch.zeros_like(inputs["attention_mask"])
            masks[:, :-1] = inputs["attention_mask"][:, 1:]
            pairs = zip(queries[start : start + size], responses[start : start + size], strict=True)
            for row, (query, response) in enumerate(pairs):
                masks[row, : len(query) - 1] = 0
                masks[row, len(query) - 1 + len(response) :] = 0
            all_logits.append(logits)
            all_values.append(values)
            all_logprobs.append(logprobs)
            all_masks.append(masks)
        return (
            torch.cat(all_logprobs),
            torch.cat(all_logits)[:, :-1] if return_logits else None,
            torch.cat(all_values)[:, :-1],
            torch.cat(all_masks)[:, :-1],
        )


def build_library_trainer(folder, tokenizer, tmp_path, forward_of_its_own=True):
    from peft import LoraConfig

    torch.manual_seed(0)
    tokenizer.pad_token_id, tokenizer.padding_side = 7, "left"
    lora = LoraConfig(r=4, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder, peft_config=lora)
    reward_model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    kind = LibraryTrainer if forward_of_its_own else type("Plain", (LibraryTrainer,), {})
    if not forward_of_its_own:
        kind.batched_forward_pass = PPOTrainer.batched_forward_pass
    dataset = Dataset.from_dict({"input_ids": [tokenizer.encode(text) for text in PROMPTS * 2]})
    args = {"lr": 1e-4, "logs": str(tmp_path)}
    return kind(args, model, reward_model, tokenizer, dataset, lambda rows: tokenizer.pad(rows, return_tensors="pt"))


def test_a_librarys_subclass_runs(folder, tokenizer, tmp_path):
    trainer = build_library_trainer(folder, tokenizer, tmp_path)
    assert isinstance(trainer, Trainer)
    assert trainer.ref_model is None
    assert trainer.is_peft_model
    before = weights(trainer)
    stats = trainer.library_train()
    assert trainer.state.global_step == 2
    assert trainer.forward_passes > 8
    assert moved(trainer, before)
    assert stats["ppo/learning_rate"] < 1e-4  # the cosine schedule
    assert math.isfinite(stats["ppo/loss/total"])
    trainer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "adapter_model.safetensors").is_file()


def test_its_forward_pass_gives_what_ours_gives(folder, tokenizer, tmp_path):
    """Padding, masks and all: after two steps the adapters are the same."""
    results = []
    for own in (True, False):
        trainer = build_library_trainer(folder, tokenizer, tmp_path, own)
        trainer.library_train()
        results.append(weights(trainer))
    for name, parameter in results[0].items():
        torch.testing.assert_close(parameter, results[1][name], rtol=0, atol=2e-5, msg=name)


# ---------------------------------------------------------------- trackers and the hub


def test_wandb_keeps_what_the_script_logs_beside(folder, tokenizer, tmp_path, monkeypatch):
    """`log_stats` names no step, so that none of W&B's own count is passed over and dropped."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    wandb.teardown()  # it reads the environment once per process, which another test may have begun
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    config = PPOConfig(batch_size=4, mini_batch_size=4, ppo_epochs=1, log_with="wandb")
    trainer = PPOTrainer(config, model, tokenizer=tokenizer)
    queries = [torch.tensor(tokenizer.encode(text)) for text in PROMPTS]
    for n in range(3):
        for _ in range(3):
            wandb.log({"mine": n})
        stats = trainer.step(queries, [q[:2] for q in queries], [torch.tensor(float(n))] * 4)
        trainer.log_stats(stats, {"query": PROMPTS, "response": PROMPTS}, [torch.tensor(float(n))] * 4)
    with pytest.raises(ValueError, match="batch has no column response to log"):
        trainer.log_stats(stats, {"query": PROMPTS}, [torch.tensor(0.0)] * 4)
    trainer.accelerator.end_training()
    rows = history(finished_wandb(tmp_path))
    assert [row["env/reward_mean"] for row in rows if "env/reward_mean" in row] == [0.0, 1.0, 2.0]
    assert [row["mine"] for row in rows if "mine" in row] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert sum("game_log" in str(list(row)) for row in rows) == 3


class Pushed(PPOTrainer):
    """Notes what is pushed instead of pushing it."""

    pushes = ()

    def push_to_hub(self, repo_id, **options):
        self.pushes = (*self.pushes, (repo_id, options, self.native.updates_done))


def test_the_best_model_is_pushed(folder, tokenizer):
    model = AutoModelForCausalLMWithValueHead.from_pretrained(folder)
    config = PPOConfig(
        batch_size=4, mini_batch_size=4, ppo_epochs=1, compare_steps=2,
        push_to_hub_if_best_kwargs={"repo_id": "me/best", "private": True},
    )  # fmt: skip
    trainer = Pushed(config, model, tokenizer=tokenizer)
    queries = [torch.tensor(tokenizer.encode(text)) for text in PROMPTS]
    for score in (1.0, 9.0, 0.5, 9.0, 2.0):  # looked at: 1, 0.5, 2
        trainer.step(queries, [q[:2] for q in queries], [score] * 4)
    assert trainer.pushes == (("me/best", {"private": True}, 0), ("me/best", {"private": True}, 4))
