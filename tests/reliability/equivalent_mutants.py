"""Mutants that no test can tell from the original, or not without more packages: (module, function, change) -> why."""

SET_ANEW = "every run of the epochs sets the learning rate of each group anew"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("maths/tensors.py", "entropy_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("maths/kl.py", "kl_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("ppo/spans.py", "token_ends", "True -> False"): "the prefixes are decoded instead, which gives the same ends",
    ("policy/policy.py", "Policy.features", "False -> True"): "a cache that nobody reads",
    ("policy/logprobs.py", "token_logprobs", "True -> False"): "what is zipped has one length by construction",
    ("models/load.py", "build_from_scratch", "without num_key_value_heads=config.heads"): "LlamaConfig's own default",
    ("models/load.py", "load_causal_lm", "keep_differentiable(model) -> None"): (
        "does nothing but to a base in four bits: tests/test_quantized.py, with bitsandbytes"
    ),
    ("ppo/update.py", "ClippedEpochs.gradient", "True -> False"): "what is zipped has one length by construction",
    ("ppo/update.py", "ClippedEpochs.loss", "without with_values=config.uses_critic"): "values that nobody reads",
    (
        "ppo/update.py",
        "ClippedEpochs.gradient",
        "sum_gradients(self.ranks, [parameter for _, parameter in self.policy.trainable]) -> None",
    ): "one process has nothing to add up: tests/test_distributed.py, with two",
    ("ppo/update.py", "ClippedEpochs.__init__", "without lr=config.learning_rate"): SET_ANEW,
    ("ppo/update.py", "ClippedEpochs.__init__", "config.learning_rate -> config.critic_learning_rate"): SET_ANEW,
}
