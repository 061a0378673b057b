"""Names that settings have elsewhere (TRL, transformers, other PPO code), and which of ours they are."""

from typing import NamedTuple


class Elsewhere(NamedTuple):
    """The message about a foreign name: the settings that do the same here (those that the stage has), and a remark."""

    keys: tuple[str, ...]
    remark: str = ""


def _is(*keys: str, remark: str = "") -> Elsewhere:
    return Elsewhere(keys, remark)


_RESPONSE = _is("sampling.max_new_tokens")
_DTYPE = _is("model.dtype", remark="bfloat16, float32, or auto for what is fast here")
_EOS = _is("sampling.stop", remark="a list of strings; EOS ends a response anyway")
_ACCUMULATION = _is("micro_batch_size", remark="what lies between it and the batch is accumulated")
_UPDATES = _is("num_updates", "num_train_epochs")
_SCALE = _is("score_normalization", remark="scale or standardize")
_EVALUATION = _is("evaluation.every", remark="measures along the way on data.eval")
_EVERY_STEP = _is("tracking.samples", remark="metrics are logged at every step")
_WANDB = _is("tracking.wandb", "tracking.tensorboard")
_REWARD_MODEL = _is("rewards", remark="[{path: reward_model, args: {path: FOLDER}}]")
_CRITIC = _is("critic", remark="the critic is part of the policy")
_REFERENCE = _is("model.name_or_path", remark="the reference is the policy without its adapters")
_NO_DROPOUT = _is(remark="dropout is off in every stage")
_NO_TEXT = _is(remark="texts are neither packed nor cut; rows of equal length share a batch")

NAMES = {
    "accelerator_kwargs": _is(remark="accelerate launch takes them"),
    "adam_eps": _is(remark="AdamW has PyTorch's values"),
    "adam_epsilon": _is(remark="AdamW has PyTorch's values"),
    "adap_kl_ctrl": _is("adaptive_kl_target", remark="set it to steer kl_coef"),
    "approx_kl_limit": _is("target_kl"),
    "bf16": _DTYPE,
    "beta": _is("kl_coef"),
    "clip_grad": _is("max_grad_norm"),
    "clip_ratio": _is("clip_range"),
    "clip_reward": _is("score_clip"),
    "cliprange": _is("clip_range"),
    "cliprange_value": _is("value_clip_range"),
    "completion_only_loss": _is(remark="the loss is on the completion only"),
    "context_length": _is("model.scratch", "data.max_prompt_tokens"),
    "dataset": _is("data.train"),
    "dataset_name": _is("data.train"),
    "dataset_config": _is("data.name"),
    "dataset_test_split": _is("data.eval_split"),
    "dataset_train_split": _is("data.train_split"),
    "disable_dropout": _NO_DROPOUT,
    "early_stopping": _is("target_kl"),
    "ent_coef": _is("entropy_coef"),
    "entropy_coeff": _is("entropy_coef"),
    "epochs": _UPDATES,
    "epsilon": _is("clip_range"),
    "eval_dataset": _is("data.eval"),
    "eval_steps": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "exp_name": _is("output_dir", remark="runs are named after it"),
    "fp16": _DTYPE,
    "generation_kwargs": _is("sampling"),
    "gradient_accumulation_steps": _ACCUMULATION,
    "group_size": _is("num_generations"),
    "horizon": _is("adaptive_kl_horizon"),
    "hub_model_id": _is("push_to_hub.model_id"),
    "hub_private_repo": _is("push_to_hub.private"),
    "init_kl_coef": _is("kl_coef"),
    "kl_ctl": _is("kl_coef"),
    "kl_penalty": _is("kl_estimator"),
    "lam": _is("gae_lambda"),
    "lambda": _is("gae_lambda"),
    "load_in_4bit": _is("model.quantization", remark="4bit"),
    "local_rollout_forward_batch_size": _is("rollout_batch_size"),
    "log_with": _WANDB,
    "logging_dir": _is("output_dir"),
    "logging_steps": _EVERY_STEP,
    "lora_alpha": _is("lora.alpha"),
    "lora_dropout": _NO_DROPOUT,
    "lora_r": _is("lora.r"),
    "lora_rank": _is("lora.r"),
    "lora_target_modules": _is("lora.target_modules"),
    "loss_type": _is("loss_aggregation"),
    "lr": _is("learning_rate"),
    "lr_scheduler_type": _is("lr_schedule", remark="constant or linear; other stages have cosine"),
    "max_completion_length": _RESPONSE,
    "max_length": _is("data.max_prompt_tokens", "data.max_completion_tokens", "sampling.max_new_tokens"),
    "max_prompt_length": _is("data.max_prompt_tokens"),
    "max_seq_length": _is("data.max_prompt_tokens", "data.max_completion_tokens", "sampling.max_new_tokens"),
    "max_steps": _UPDATES,
    "mixed_precision": _DTYPE,
    "model_name": _is("model.name_or_path"),
    "model_name_or_path": _is("model.name_or_path"),
    "n": _is("num_generations"),
    "num_epochs": _UPDATES,
    "num_mini_batches": _is("mini_batch_size", remark="batch_size divided by their number"),
    "num_return_sequences": _is("num_generations"),
    "num_sample_generations": _is("inspect.every", "tracking.samples"),
    "num_samples": _is("num_generations"),
    "num_train_epochs": _is("num_updates", "total_episodes", remark="PPO counts rollouts, or responses"),
    "num_gpus": _is("num_processes", remark="accelerate launch starts them"),
    "optim": _is(remark="the optimizer is AdamW"),
    "packing": _NO_TEXT,
    "peft_config": _is("lora"),
    "per_device_eval_batch_size": _is("batch_size"),
    "per_device_train_batch_size": _is("micro_batch_size", remark="batch_size counts those of all devices"),
    "policy_model": _is("model.name_or_path"),
    "ppo_epochs": _is("num_ppo_epochs"),
    "precision": _DTYPE,
    "ref_model": _REFERENCE,
    "reference_model": _REFERENCE,
    "remove_unused_columns": _is(remark="rewards get every column of the data"),
    "report_to": _WANDB,
    "response_length": _RESPONSE,
    "reward_funcs": _is("rewards"),
    "reward_function": _is("rewards"),
    "reward_model": _REWARD_MODEL,
    "reward_model_path": _REWARD_MODEL,
    "reward_weights": _is("rewards", remark="[{path: NAME, weight: 0.5}]"),
    "run_name": _is("output_dir", remark="runs are named after it"),
    "save_strategy": _is("checkpoint.save_steps"),
    "scale_rewards": _SCALE,
    "sft_model_path": _is("model.name_or_path"),
    "stop_token": _EOS,
    "stop_token_id": _EOS,
    "stop_strings": _EOS,
    "steps": _UPDATES,
    "target": _is("adaptive_kl_target"),
    "torch_dtype": _DTYPE,
    "total_episodes": _is("num_train_epochs"),
    "total_steps": _UPDATES,
    "tracker_project_name": _is("tracking.wandb_project"),
    "train_batch_size": _is("batch_size"),
    "train_dataset": _is("data.train"),
    "train_file": _is("data.train"),
    "use_lora": _is("lora.r"),
    "use_peft": _is("lora.r"),
    "use_score_norm": _SCALE,
    "use_score_scaling": _SCALE,
    "use_vllm": _is("generation.engine", remark="vllm"),
    "validation_file": _is("data.eval"),
    "value_model": _CRITIC,
    "value_model_path": _CRITIC,
    "vf_coeff": _is("vf_coef"),
    "vllm_gpu_memory_utilization": _is("generation.gpu_memory_utilization"),
    "vllm_mode": _is("generation.mode"),
    "vllm_server_base_url": _is("generation.server_url"),
    "warmup_ratio": _is("warmup_fraction"),
    "warmup_steps": _is("warmup_fraction", remark="a share of the steps"),
    "whiten_advantage": _is("whiten_advantages"),
    "world_size": _is("num_processes"),
}
