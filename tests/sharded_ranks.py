"""What one of several processes does in tests/test_sharding.py: argv is a folder with given.json and rollout/."""

import json
import os
import sys
import time
from pathlib import Path

import torch
import vllm_standin
from accelerate import Accelerator
from allocated import allocated_at_most
from tiny_runs import make_trainer
from torch.distributed.tensor import DTensor

from rlhf.config import ModelConfig, SamplingConfig
from rlhf.config.generation import GenerationConfig
from rlhf.errors import OtherRankError, UserError
from rlhf.models.divided import load_divided
from rlhf.models.head import trunk_of
from rlhf.models.load import load_causal_lm
from rlhf.parallel.ranks import Ranks, require_same_weights
from rlhf.policy.sharding import in_step
from rlhf.ppo.rollout import policy_outputs
from rlhf.ppo.rollout_files import load_rollout
from rlhf.sampling.responses import sample_responses

torch.set_num_threads(1)
FOLDER = Path(sys.argv[1])
GIVEN = json.loads((FOLDER / "given.json").read_text())
RANKS = Ranks.of(Accelerator())
if "per_machine" in GIVEN:
    os.environ["LOCAL_WORLD_SIZE"] = str(GIVEN["per_machine"])


def make(engine: str, variant: dict, **options):
    """A trainer whose base is divided (fsdp) or not (ddp)."""
    os.environ.update(ACCELERATE_USE_FSDP=str(engine == "fsdp").lower(), FSDP_VERSION="2")
    return make_trainer(GIVEN["models"], GIVEN["data"], **variant, **options)


def held(policy) -> int:
    """Numbers in the frozen weights that this process holds; adapters are frozen too while they are off."""
    of_base = (p for name, p in policy.named_parameters() if "lora_" not in name and "v_head" not in name)
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in of_base)


def watched(policy) -> list[int]:
    """What is held while each block runs, from now on."""
    seen = []
    for block in {block for blocks in policy.divided_trunks.values() for block in blocks}:
        block.register_forward_pre_hook(lambda *_: seen.append(held(policy)))
    return seen


def train_on(rollout, variant: dict) -> tuple[torch.Tensor, dict]:
    """The trainable parameters after the clipped epochs; and how much of the base each process held, when."""
    trainer = make("fsdp", variant)
    share, seen = held(trainer.policy), watched(trainer.policy)
    trainer.epochs.run(rollout, 1.0, critic_only=False)
    return (
        torch.cat([p.detach().flatten() for _, p in trainer.policy.trainable]),
        {"shares": RANKS.gather(share), "after": held(trainer.policy), "at_most": max(seen)},
    )


def unequal_work(variant: dict, reshard_after_forward: bool) -> dict:
    """The first rank samples and evaluates three prompts, the others one: is every number that of an undivided base?"""
    os.environ["FSDP_RESHARD_AFTER_FORWARD"] = str(reshard_after_forward).lower()
    plain, divided = make("ddp", variant), make("fsdp", variant)
    share, seen = held(divided.policy), watched(divided.policy)
    prompts = plain.prompts.prompts[: 3 if RANKS.is_first else 1]
    sampling = SamplingConfig(max_new_tokens=10 if RANKS.is_first else 5, merge_adapters="never")
    responses, numbers = [], []
    for trainer in (plain, divided):
        policy = trainer.policy
        with RANKS.failing_together(), in_step(policy):
            responses.append(sample_responses(policy, trainer.tokenizer, prompts, sampling, trainer.generator))
            said = policy_outputs(policy, responses[0], 1.0, 1, with_values=True, with_entropy=True)
            with policy.reference():
                reference = policy_outputs(policy, responses[0], 1.0, 1, with_values=False, with_entropy=True)
        numbers.append(torch.stack([*said, *reference, responses[-1].sampler_logprobs]))
    is_same = torch.equal(*numbers) and torch.equal(responses[0].sequence_ids, responses[1].sequence_ids)
    found = {"is_same": RANKS.gather(is_same), "at_most": max(RANKS.gather(max(seen))), "after": held(divided.policy)}
    os.environ.pop("FSDP_RESHARD_AFTER_FORWARD")
    return found | {"share": share}


def cut_short(variant: dict, fails_in_block: int) -> list[str]:
    """What each rank says when the second one fails in the middle of its second pass, and the first has many to run."""
    trainer = make("fsdp", variant)
    policy, calls, heard = trainer.policy, [], ""

    def fail(*_) -> None:
        calls.append(1)
        if len(calls) == 2 and not RANKS.is_first:
            raise RuntimeError("no memory for the activations")

    blocks = policy.divided_trunks[trunk_of(policy.language_model)]
    hook = blocks[fails_in_block].register_forward_pre_hook(fail)
    ids = torch.tensor([[1, 2, 3]])
    try:
        with RANKS.failing_together(), in_step(policy):
            for _ in range(5):
                policy.features(ids)
    except (OtherRankError, RuntimeError) as error:
        heard = f"{type(error).__name__}: {error}"
    hook.remove()
    with torch.no_grad(), in_step(policy):
        again = policy.features(ids)
    whole = make("ddp", variant).policy.features(ids)
    return RANKS.gather(f"{heard}; afterwards {'as before' if torch.equal(again, whole) else 'something else'}")


def loaded(where: str) -> dict:
    """Bytes that each process takes while it loads, and whether the weights are those that are stored."""
    models, config = [], ModelConfig(name_or_path=where)
    at_most = allocated_at_most(lambda: models.append(load_divided(config, RANKS)))
    [divided], stored = models, load_causal_lm(config)
    whole = {name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in divided.named_parameters()}
    expected = dict(stored.named_parameters())
    is_same = whole.keys() == expected.keys() and all(torch.equal(whole[name], expected[name]) for name in whole)
    is_tied = divided.get_output_embeddings().weight is trunk_of(divided).get_input_embeddings().weight
    buffers = all(torch.equal(*pair) for pair in zip(divided.buffers(), stored.buffers(), strict=True))
    blocks = sum(p.nbytes for name, p in expected.items() if name.startswith("model.layers."))
    return {
        "at_most": RANKS.gather(at_most),
        "is_same": RANKS.gather(is_same and buffers and is_tied == stored.config.tie_word_embeddings),
        "blocks": blocks,
        "rest": sum(p.nbytes for p in expected.values()) - blocks,
        "n_blocks": stored.config.num_hidden_layers,
    }


def beside_vllm(url: str) -> dict:
    """Two updates on responses of a vLLM server that gets the adapters; and what is said where it would get weights."""
    vllm_standin.install(sys.modules.__setitem__, sys.modules.pop)
    options = {"engine": "vllm", "mode": "server", "server_url": url}
    trainer = make("fsdp", {}, generation=GenerationConfig(**options, send="adapters"), output_dir=str(FOLDER / "vllm"))
    share = held(trainer.policy)
    rollout = [trainer.update() for _ in range(2)][-1].rollout
    try:
        make("fsdp", {}, generation=GenerationConfig(**options))
    except UserError as error:
        heard = str(error)
    return {
        "moved": float((rollout.old_logprobs - rollout.ref_logprobs).abs().max()),
        "apart": float(((rollout.old_logprobs - rollout.sampler_logprobs) * rollout.response_mask).abs().max()),
        "stayed_divided": RANKS.gather(held(trainer.policy) == share),
        "weights": RANKS.gather(heard),
    }


def other_weights() -> list[str]:
    """What each rank says when one weight of the second one is another."""
    heard, model = "", torch.nn.Linear(3, 3, bias=False)
    model.weight.data.fill_(1.0)
    require_same_weights(RANKS, model)
    model.weight.data[0, 0] += 0.01 * RANKS.index
    try:
        require_same_weights(RANKS, model)
    except UserError as error:
        heard = str(error)
    return RANKS.gather(heard)


def missing_model() -> list[str]:
    """What each rank says of a folder that is not there."""
    try:
        load_divided(ModelConfig(name_or_path="./nowhere"), RANKS)
    except UserError as error:
        heard = f"{type(error).__name__}: {error}"
    return RANKS.gather(heard)


if __name__ == "__main__":
    from safetensors.torch import save_file

    rollout = load_rollout(FOLDER / "rollout")
    results = {name: train_on(rollout, variant) for name, variant in GIVEN["variants"].items()}
    found = {"held": {name: held for name, (_, held) in results.items()}, "weights": other_weights()}
    for name in GIVEN["unequal_work"]:
        variant = GIVEN["variants"][name]
        found[f"unequal_work {name}"] = unequal_work(variant, reshard_after_forward=True)
        found[f"unequal_work {name} gathered"] = unequal_work(variant, reshard_after_forward=False)
        found[f"cut_short {name}"] = [cut_short(variant, fails_in_block) for fails_in_block in (0, 1)]
    if "vllm" in GIVEN:
        found["vllm"] = beside_vllm(GIVEN["vllm"])
    if "large" in GIVEN:
        found |= {"loaded": loaded(GIVEN["large"]), "missing": missing_model()}
    if RANKS.is_first:
        save_file({name: parameters for name, (parameters, _) in results.items()}, FOLDER / "parameters.safetensors")
        (FOLDER / "found.json").write_text(json.dumps(found))
    time.sleep(
        1.0
    )  # FSDP keeps gloo's threads (see rlhf.parallel.launch); they give their tensors back before Python ends
