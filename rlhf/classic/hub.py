"""Where a trained model goes: into a folder, and from there to the hub."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.classic.batch import Batch
from rlhf.classic.checkpoints import save_checkpoint
from rlhf.classic.config import PPOConfig
from rlhf.classic.update import StepTrainer
from rlhf.config.checks import require

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast

CARD = """---
library_name: transformers
tags: [rlhf, ppo]
---

# {name}

A causal language model with a value head, trained by PPO: {settings}.
`rlhf.AutoModelForCausalLMWithValueHead.from_pretrained` loads both, `AutoModelForCausalLM.from_pretrained` the policy.
"""


class Saving:
    """The saving half of the classic trainer."""

    config: PPOConfig
    model: Any
    tokenizer: "PreTrainedTokenizerFast"
    accelerator: "Accelerator"
    native: StepTrainer
    highest_reward = float("-inf")

    def save_pretrained(
        self,
        save_directory: str | Path,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        *,
        trl_0_11: bool = False,
        **options: Any,
    ) -> None:
        """Write model, value head, tokenizer and model card; the classes of TRL and of this project read the folder.

        Args:
            save_directory: Files of the same names are replaced.
            repo_id: Repository for push_to_hub; None takes the name of the folder.
            push_to_hub: Upload it too.
            trl_0_11: Write adapters so that the PEFT of TRL 0.11 reads them, see `save_checkpoint`.
            options: For `push_to_hub`; refused without it.
        """
        needless = sorted(options) if repo_id is None else ["repo_id", *sorted(options)]
        require(
            push_to_hub or not needless,
            f"save_pretrained got {', '.join(needless)}, without effect unless push_to_hub=True; leave it out",
        )
        how = {"trl_0_11": True} if trl_0_11 else {}
        if self.accelerator.is_main_process:
            self._save_pretrained(save_directory, **how)
        if push_to_hub:
            self.push_to_hub(repo_id or Path(save_directory).name, **options | how)

    def _save_pretrained(self, save_directory: str | Path, trl_0_11: bool = False) -> None:
        save_checkpoint(self.model, save_directory, trl_0_11)
        self.tokenizer.save_pretrained(save_directory)
        self.create_model_card(save_directory)

    def create_model_card(self, path: str | Path, model_name: str | None = "PPO model") -> None:
        """Write README.md: what the folder holds, and the settings that made it."""
        shown = {
            name: getattr(self.config, name) for name in ("learning_rate", "batch_size", "ppo_epochs", "kl_penalty")
        }
        settings = ", ".join(f"{name} {value}" for name, value in shown.items())
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "README.md").write_text(CARD.format(name=model_name, settings=settings), encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a model trained by PPO",
        private: bool | None = None,
        token: str | None = None,
        trl_0_11: bool = False,
        **options: Any,
    ) -> str | None:
        """Upload what `save_pretrained` writes; returns the address of the commit, None on other processes.

        Args:
            repo_id: Made if need be.
            commit_message: Of the upload.
            private: Whether a new repository is to be.
            token: Instead of the one that is logged in.
            trl_0_11: As in `save_pretrained`.
            options: For the `upload_folder` of huggingface_hub.
        """
        from huggingface_hub import HfApi

        if not self.accelerator.is_main_process:
            return None
        hub = HfApi(token=token, library_name="rlhf")
        repository = hub.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self._save_pretrained(folder, **({"trl_0_11": True} if trl_0_11 else {}))
            done = hub.upload_folder(
                repo_id=repository.repo_id, folder_path=folder, commit_message=commit_message, **options
            )
        return str(done.commit_url)

    def _push_if_best(self, batch: Batch) -> None:
        """Push the model that earned the best mean score so far, where the config asks for it."""
        options, done = self.config.push_to_hub_if_best_kwargs, self.native.updates_done
        if options and done % self.config.compare_steps == 0:
            earned = [total + sum(row) for total, row in zip(batch.scores.total, batch.token_rewards, strict=True)]
            totals = [score for share in self.native.ranks.gather(earned) for score in share]
            mean = sum(totals) / len(totals)
            if mean > self.highest_reward:
                self.highest_reward = mean
                self.push_to_hub(**options)
