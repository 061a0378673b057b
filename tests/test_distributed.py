"""Two real processes (gloo) against one."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from processes import launch
from safetensors.torch import load_file
from tiny_data import write_pairs
from tiny_runs import make_config, make_trainer

from rlhf.errors import UserError
from rlhf.parallel.ranks import Ranks
from rlhf.ppo.rollout_files import save_rollout
from rlhf.rewards import RewardSum
from rlhf.stages.ppo import build_trainer

VARIANTS = {
    "adapter": {"mini_batch_size": 4, "micro_batch_size": 2},
    "uneven": {"mini_batch_size": 3, "micro_batch_size": 1},  # 8 rows: minibatches of 3, 3 and 2
    "odd_one_out": {"mini_batch_size": 7, "micro_batch_size": 4, "critic": "shared"},  # the last has a single row
    "early_stop": {"mini_batch_size": 4, "target_kl": 5e-3},
}


@pytest.fixture(scope="module")
def two_processes(tiny_models, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder that two processes worked in, and what one process makes of the same rollout."""
    folder = tmp_path_factory.mktemp("ranks")
    data = write_pairs(folder)
    (folder / "config.json").write_text(json.dumps({"model": str(tiny_models["gpt2"]), "data": data}))
    trainer = make_trainer(tiny_models, data)
    rollout = trainer.update().rollout
    n_tokens = torch.tensor([1, 10, 2, 9, 3, 8, 4, 7]).minimum(rollout.lengths)  # ragged
    mask = torch.arange(rollout.response_mask.shape[1]) < n_tokens.unsqueeze(-1)
    rollout = dataclasses.replace(rollout, response_mask=mask)
    save_rollout(folder / "rollout", rollout, trainer.tokenizer)
    alone = {}
    for name, options in VARIANTS.items():
        config = make_config(tiny_models["gpt2"], data, **options)
        fresh = build_trainer(config, RewardSum.from_specs(config.rewards))
        metrics = fresh.epochs.run(rollout, 1.0, critic_only=False)
        alone[name] = torch.cat([p.detach().flatten() for _, p in fresh.policy.trainable])
        if name == "early_stop":
            assert 0 < metrics["policy/steps"] < 4
    done = launch("tests/ranks.py", str(folder), json.dumps(VARIANTS))
    assert done.returncode == 0, done.stderr
    return folder, alone


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_like_one(two_processes, name):
    """The same minibatches, epochs and early stop: parameters differ by the order of float additions alone."""
    folder, alone = two_processes
    together = load_file(folder / "parameters.safetensors")[name]
    assert (alone[name] - together).abs().max() < 1e-5  # lr 0.01; Adam makes much of a gradient that is rounding
    assert not torch.equal(alone[name], alone["adapter"]) or name == "adapter"


def test_an_error_on_one_rank_is_heard_on_all(two_processes):
    folder, _ = two_processes
    assert json.loads((folder / "heard.json").read_text()) == [
        "OtherRankError: rank 1 failed (ValueError: the reward raised)",
        "ValueError: the reward raised",
    ]


def test_two_processes_reuse_a_batch(two_processes):
    """tests/ranks.py asserts what each of them sees."""
    folder, _ = two_processes
    assert json.loads((folder / "staleness.json").read_text()) == [0, 1, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_thread_of_gloo_is_left_when_python_ends(two_processes):
    """It would abort the process now and then, after all the work."""
    folder, _ = two_processes
    for rank in range(2):
        names = json.loads((folder / f"threads_{rank}.json").read_text())
        assert names
        assert not [name for name in names if "gloo" in name]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 7, 8])
def test_shares_cover_everything_evenly(n, count):
    shares = [range(n)[Ranks(index, count).share(n)] for index in range(count)]
    assert [item for share in shares for item in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_other_number_of_processes_than_asked_for_is_refused(tiny_models, pairs):
    with pytest.raises(UserError, match="processes is 2, but 1 were launched"):
        make_trainer(tiny_models, pairs, num_processes=2)
