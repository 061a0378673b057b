"""PPO fine-tuning of language models: SFT, reward scoring and PPO on the Hugging Face stack."""

__version__ = "0.1.0"
