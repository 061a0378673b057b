"""Training prompts with verifiable instructions: tasks, constraints on the answer, and what fits together."""
