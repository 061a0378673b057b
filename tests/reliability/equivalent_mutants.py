"""Mutants that no test can tell from the original, and why: (module, function, change) -> reason."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("maths/tensors.py", "entropy_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
    ("maths/kl.py", "kl_from_logits", "0.0 -> 1.0"): "it is multiplied by a probability of 0",
}
