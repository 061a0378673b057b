"""Mutants that no test can tell from the original, and why: (module, function, change) -> reason."""

SET_ANEW = "every run of the epochs sets the learning rate of each group anew"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("maths/tensors.py", "entropy_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("maths/kl.py", "kl_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("ppo/spans.py", "span_rewards", "True -> False"): "what is zipped has one length by construction",
    ("ppo/update.py", "ClippedEpochs.__init__", "without lr=config.learning_rate"): SET_ANEW,
    ("ppo/update.py", "ClippedEpochs.__init__", "config.learning_rate -> config.critic_learning_rate"): SET_ANEW,
}
