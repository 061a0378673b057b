"""The classic loop of TRL 0.11 on this project's update: `generate`, score it yourself, `step`.

`from rlhf import PPOTrainer, PPOConfig, AutoModelForCausalLMWithValueHead`; docs/reference/trl.md maps every name.
"""
