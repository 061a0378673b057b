"""What one of several processes does in tests/test_distributed.py: argv is the folder with config.json and rollout/."""

import atexit
import json
import sys
from pathlib import Path

import torch
from tiny_runs import make_config

from rlhf.errors import UserError
from rlhf.parallel.launch import rank
from rlhf.ppo.rollout_files import load_rollout
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer

torch.set_num_threads(1)


def train_on(folder: Path, **options) -> torch.Tensor:
    """The trainable parameters after the clipped epochs over the rollout in `folder`, all ranks together."""
    given = json.loads((folder / "config.json").read_text())
    config = make_config(given["model"], given["data"], **options)
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    metrics = trainer.epochs.run(load_rollout(folder / "rollout"), 1.0, critic_only=False)
    parameters = torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable])
    ranks = trainer.ranks
    assert all(m == metrics for m in ranks.exchange(lambda: metrics))
    assert all(torch.equal(p, parameters) for p in ranks.exchange(lambda: parameters))
    return parameters


def reuse_batch(folder: Path) -> list[float]:
    """The staleness of three updates on two batches: each rank keeps its share, and all know the same whole."""
    given = json.loads((folder / "config.json").read_text())
    config = make_config(given["model"], given["data"], reuse_batch=2, importance_correction="token")
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    updates = [trainer.update() for _ in range(3)]
    sampled = [update.rollout.sequence_ids for update in updates]
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[1], sampled[2])
    metrics = [{k: v for k, v in u.metrics.items() if not k.startswith("time/")} for u in updates]
    assert all(m == metrics for m in trainer.ranks.exchange(lambda: metrics))
    assert abs(metrics[1]["sampling/weight_mean"] - 1) > 1e-4
    return [m["sampling/staleness"] for m in metrics]


def failure_on_one_rank(folder: Path) -> list[str]:
    """How each rank hears of an error that only the second one meets."""
    from accelerate import Accelerator

    from rlhf.parallel.ranks import Ranks

    ranks = Ranks.of(Accelerator())

    def work() -> int:
        if ranks.index == 1:
            raise ValueError("the reward raised")
        return 1

    try:
        ranks.exchange(work)
    except (ValueError, UserError) as error:
        heard = f"{type(error).__name__}: {error}"
    return ranks.exchange(lambda: heard)


def wrap_and_forget() -> None:
    """What SFT leaves behind: a DDP wrapper that only the garbage collector frees."""
    wrapper = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    wrapper.held_by = [wrapper]


def write_threads(file: Path) -> None:
    """The names of the threads of this process: what is left of them when Python ends."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    file.write_text(json.dumps(names))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    atexit.register(write_threads, folder / f"threads_{rank()}.json")  # called after what is registered later
    results = {name: train_on(folder, **options) for name, options in json.loads(sys.argv[2]).items()}
    staleness = reuse_batch(folder)
    heard = failure_on_one_rank(folder)
    wrap_and_forget()
    from safetensors.torch import save_file

    save_file(results, folder / "parameters.safetensors")
    (folder / "heard.json").write_text(json.dumps(heard))
    (folder / "staleness.json").write_text(json.dumps(staleness))
