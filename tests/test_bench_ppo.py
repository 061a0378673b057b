"""The benchmark against TRL: what it counts, what it gives both sides to do, and that both do it."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bench_costs
import bench_parts
import bench_ppo
import pytest
import torch
import trl_ppo
from ppo_bench import floor, minimind, model, settings
from ppo_bench.conclude import conclude
from ppo_bench.laps import PHASES
from tiny_runs import make_config
from torch.utils.flop_counter import FlopCounterMode

from rlhf.config import DataConfig, ModelConfig, SamplingConfig
from rlhf.models.load import load_causal_lm
from rlhf.rewards import RewardSpec
from rlhf.sampling.decode import sample

ROOT = Path(__file__).resolve().parent.parent
LLAMA = replace(settings.TINY, architecture="llama", heads=4, hidden=32, kv_heads=2, feed_forward=48)
QWEN3 = replace(LLAMA, architecture="qwen3")
SHAPES = {"gpt2": settings.TINY, "llama": LLAMA, "qwen3": QWEN3}


def test_work_by_hand() -> None:
    shape = replace(
        settings.TINY, layers=1, hidden=2, heads=1, kv_heads=1, feed_forward=8, vocabulary=3, prompt_tokens=1, epochs=3
    )
    # weights of the block: 2*6 + 2*2 + 2*8 + 8*2 = 48, so 96 FLOPs per token; attention 8 per pair of positions
    # one response of 2 tokens: the trunk reads the prompt and the first of them, 3 pairs
    whole, prefill = 2 * 96 + 3 * 8, 96 + 8
    backward = (2 * 96 - 2 * 24) + 2 * 3 * 8
    head = 2 * 2 * 3 * 2
    shared = floor.work_of_update(shape, [2], "shared")
    assert shared == (prefill + 2 * whole + 3 * (whole + backward), whole - prefill, 2 * head + 6 * head, head)
    adapter = floor.work_of_update(shape, [2], "adapter")
    assert adapter.tokens - shared.tokens == whole + 3 * (whole + backward)
    assert adapter[1:] == shared[1:]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_forward_and_backward_are_what_torch_counts(shape) -> None:
    trunk = model.random_model(shape).requires_grad_(False)
    trunk.set_attn_implementation("eager")  # torch counts its products, masked ones too
    block = trunk.base_model.h[0].attn if shape.architecture == "gpt2" else trunk.base_model.layers[0].self_attn
    first = [block.c_attn] if shape.architecture == "gpt2" else [block.q_proj, block.k_proj, block.v_proj]
    for layer in first:  # adapters would ask for these gradients
        layer.register_forward_hook(lambda module, arguments, output: output.requires_grad_())
    rows, length = 3, 5
    masked = rows * length * (length - 1) / 2 * 4 * shape.layers * shape.hidden
    ids = torch.ones(rows, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        out = trunk.base_model(input_ids=ids, use_cache=False).last_hidden_state
        forward = counter.get_total_flops()
        out.sum().backward()
    assert forward == floor.forward(shape, [length] * rows) + masked
    assert counter.get_total_flops() - forward == floor.backward(shape, [length] * rows) + 2 * masked


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_response_ends_early(shape, tmp_path) -> None:
    assert lengths(shape, tmp_path) == [shape.response_tokens] * 256


def test_lengths_are_uniform(tmp_path) -> None:
    shape = replace(settings.TINY, response_tokens=20, shortest_response=5)
    sampled = lengths(shape, tmp_path)
    assert set(sampled) == set(range(5, 21))
    spread = math.sqrt((16**2 - 1) / 12 / 256)
    assert sum(sampled) / 256 == pytest.approx(12.5, abs=4 * spread)


def lengths(shape, folder: Path) -> list[int]:
    """Of 256 responses sampled from the workload's model."""
    model.write_workload(shape, folder)
    language_model = load_causal_lm(ModelConfig(name_or_path=str(folder)))
    prompts = torch.randint(1, shape.vocabulary, (256, shape.prompt_tokens)).tolist()
    sampling = SamplingConfig(max_new_tokens=shape.response_tokens)
    return sample(language_model, prompts, sampling, model.EOS_ID).response_mask.sum(-1).tolist()


def test_ratios() -> None:
    def update(seconds: float, length: int, peak: int) -> dict:
        phases = {"rollout": seconds / 2, "scoring": seconds / 4, "update": seconds / 4}
        halved = {name: value / 2 for name, value in phases.items()}
        return {"cpu": phases, "wall": halved, "lengths": [length] * 4, "peak_memory": peak * 2**20}

    shape = replace(settings.TINY, shortest_response=4)
    updates = {
        "rlhf": [update(1.0, 4, 100), update(3.0, 4, 120), update(2.0, 4, 110)],
        "trl": [update(8.0, 8, 400), update(6.0, 8, 300), update(10.0, 8, 300)],
        "rlhf_full_length": [update(4.0, 8, 0)],
    }
    rate = floor.Work(1e6, 2e6, 3e6, 4e6)
    flops = floor.work_of_update(shape, [4] * 4, "shared")
    floor_seconds = flops.tokens / 1e6 + flops.decoding / 2e6 + flops.head / 3e6 + flops.head_decoding / 4e6
    full = floor.work_of_update(shape, [8] * 4, "shared")
    full_seconds = full.tokens / 1e6 + full.decoding / 2e6 + full.head / 3e6 + full.head_decoding / 4e6
    result = conclude({"clock": "cpu", "critic": "shared"}, shape, updates, [rate, rate])
    assert result["speed_ratio"] == pytest.approx((16 / 2) / (32 / 8))  # tokens over the median update
    assert result["memory_ratio"] == pytest.approx(120 / 400)
    assert result["floor_ratio"] == pytest.approx(2.0 / floor_seconds)
    assert result["padding_free_share"] == pytest.approx(3 * 4.0 * floor_seconds / full_seconds / 6.0)
    assert result["sides"]["rlhf"]["seconds"] == {"rollout": 1.0, "scoring": 0.5, "update": 0.5, "total": 2.0}
    on_the_wall = conclude({"clock": "wall", "critic": "shared"}, shape, updates, [rate])
    assert on_the_wall["floor_ratio"] == pytest.approx(1.0 / floor_seconds)


def test_ratios_to_minimind() -> None:
    def update(seconds: float, peak: int) -> dict:
        return {"cpu": dict.fromkeys(PHASES, seconds / 3), "wall": {}, "lengths": [8] * 4, "peak_memory": peak * 2**20}

    updates = {"rlhf": [update(2.0, 100)], "rlhf_all_weights": [update(3.0, 300)], "minimind": [update(6.0, 400)]}
    rate = floor.Work(1e6, 1e6, 1e6, 1e6)
    result = conclude({"clock": "cpu", "critic": "adapter"}, QWEN3, updates, [rate])
    ratios = {name: value for name, value in result.items() if name.startswith(("speed", "memory"))}
    of_adapters, of_all_weights = {"speed_ratio": 3.0, "memory_ratio": 0.25}, {"speed_ratio": 2.0, "memory_ratio": 0.75}
    expected = of_adapters | {f"{name}_all_weights": value for name, value in of_all_weights.items()}
    assert ratios == pytest.approx(expected)


@pytest.fixture
def clone(tmp_path) -> Path:
    """Enough of minimind's folder to be taken for it; its code is not run here."""
    script = tmp_path / "clone" / minimind.SCRIPT
    script.parent.mkdir(parents=True)
    script.touch()
    return tmp_path / "clone"


def test_minimind_gets_as_much_work(clone, tmp_path) -> None:
    """An equal number of passes and optimizer steps, though it has no micro-batches."""
    shape = replace(QWEN3, batch=24, minibatch=12, micro_batch=4, epochs=3)
    line = f"--against minimind --minimind {clone} --setting qwen3 --critic adapter"
    sides = bench_ppo.line_up(bench_ppo.read_arguments(line.split()), shape, tmp_path)
    ours, all_weights, theirs = (side.config for side in sides)
    assert [side.trainer for side in sides] == ["rlhf", "rlhf", "minimind"]
    assert (ours.lora.r, ours.critic) == (16, "adapter")
    assert (all_weights.lora, all_weights.critic) == (None, "separate")
    given = minimind.arguments(theirs)
    passes = given.ppo_update_iters * shape.batch // given.mini_batch_size
    assert passes == 3 * 24 // 4
    assert passes // given.accumulation_steps == 3 * 24 // 12
    assert (given.max_seq_len, given.max_gen_len) == (shape.prompt_tokens, shape.response_tokens)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--against minimind --setting qwen3", "go together"),
        ("--minimind {} --setting qwen3", "go together"),
        ("--against minimind --minimind {}/absent --setting qwen3", "has no trainer/train_ppo.py"),
        ("--against minimind --minimind {} --setting qwen3 --dtype bf16", "--dtype fp32"),
        ("--against minimind --minimind {}", "--setting a is no model of minimind's"),
    ],
)
def test_minimind_where_it_cannot_be_measured(line, said, clone, capsys) -> None:
    with pytest.raises(SystemExit):
        bench_ppo.read_arguments(line.format(clone).split())
    assert said in capsys.readouterr().err


def test_a_batch_of_minimind_ends_the_update_before() -> None:
    """Not before the first; and the prompts come round again."""
    said: list[str] = []

    class Laps:
        def lap(self, phase: str) -> None:
            said.append(phase)

        def report(self) -> None:
            said.append("report")

    batches = minimind.clocked_batches(["a", "b", "c", "d"], 2, Laps())
    assert next(batches) == {"prompt": ["a", "b"]}
    assert said == []
    assert [next(batches)["prompt"] for _ in range(2)] == [["c", "d"], ["a", "b"]]
    assert said == ["update", "report"] * 2


def test_a_response_counts_through_its_first_eos() -> None:
    responses = torch.tensor([[5, 0, 0, 7], [5, 6, 7, 8], [0, 1, 2, 0]])
    assert model.response_lengths(responses) == [2, 4, 1]


@pytest.mark.long
def test_both_sides_do_the_same_work(tmp_path) -> None:
    script, file = str(ROOT / "benchmarks" / "bench_ppo.py"), str(tmp_path / "tiny.json")
    run = [sys.executable, script, "--setting", "tiny", "--repeats", "1", "--json", file]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads(Path(file).read_text())
    assert {"speed_ratio", "memory_ratio", "floor_ratio"} <= set(result)
    assert result["machine"]["trl"] == "1.12.0"
    for side in result["sides"].values():
        [update] = side["updates"]
        assert update["lengths"] == [8] * 4
        assert min(update["cpu"].values()) > 0
        assert 100 < side["peak_mib"] < 4000
    table = subprocess.run([sys.executable, script, "--table", file], capture_output=True, text=True, check=True).stdout
    assert f"| tiny | fp32 | 1 | shared | {result['speed_ratio']:.2f} |" in table


def test_trl_makes_one_step_of_several_micro_batches(tiny_models, pairs, tmp_path, monkeypatch) -> None:
    trainers = []

    def keep(*arguments) -> object:
        trainers.append(make(*arguments))
        return trainers[-1]

    make = trl_ppo.trl_trainer
    monkeypatch.setattr(trl_ppo, "trl_trainer", keep)
    config = make_config(
        tiny_models["gpt2"],
        pairs,
        output_dir=str(tmp_path),
        rewards=[RewardSpec(path="length", args={"maximum": 50})],
        num_updates=1,
        batch_size=4,
        num_generations=1,
        micro_batch_size=1,
        num_ppo_epochs=3,
    )
    config = replace(config, data=DataConfig(train=pairs, as_chat=True))  # a prompt ends with its line
    trl_ppo.train_with_trl(config, (1e-3, 1e-3), tmp_path / "policy")
    [trainer] = trainers
    assert trainer.args.per_device_train_batch_size == 1
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {3}  # one per epoch


def test_each_curve_of_the_costs_changes_one_thing() -> None:
    along_with = {"batch": {"minibatch", "micro_batch"}, "samples per prompt": {"prompt_tokens"}}
    named = {"samples per prompt": "num_generations"}
    seen = {curve: [] for curve in bench_costs.LABELS}
    for point in bench_costs.points():
        if point.curve == "model":
            continue  # another shape altogether
        changed = {field for field, value in vars(point.setting).items() if value != getattr(settings.A, field)}
        varied = named.get(point.curve, point.curve.replace(" ", "_"))
        assert changed - along_with.get(point.curve, set()) <= {varied}
        assert point.value == (vars(point.setting) | {"threads": point.threads})[varied]
        assert point.setting.batch % point.setting.num_generations == 0
        seen[point.curve].append(point.value)
    assert all(values == sorted(set(values)) and values for curve, values in seen.items() if curve != "model")


@pytest.mark.parametrize(("millions", "setting"), settings.MODELS.items())
def test_models_have_as_many_weights_as_their_name_says(millions: int, setting: settings.Setting) -> None:
    with torch.device("meta"):
        assert model.random_model(setting).num_parameters() / 1e6 == pytest.approx(millions, rel=0.03)


def test_parts_of_a_step() -> None:
    """Every product has its place, and those of the frozen layers are as many as there are layers."""
    steps, shape = 2, settings.TINY
    operations = bench_parts.profiled(shape, "float32", steps)
    shares = bench_parts.shares(operations, shape.vocabulary)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert {"attention", "activation", "norms", "products: adapters", "products: LM head"} <= set(shares)
    frozen = [o for o in operations if bench_parts.part(o, shape.vocabulary) == "products: frozen layers"]
    forward = 4 * shape.layers
    backward = forward - 1  # nothing below the first layer is trained
    assert sum(o.calls for o in frozen) == steps * (forward + backward)
