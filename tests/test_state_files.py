"""Saved state comes back bit for bit, or not at all."""

import math
import random
import struct
from collections import OrderedDict

import numpy
import pytest
import torch

from rlhf.errors import UserError
from rlhf.runs.state_files import load_state, restore_rng_state, rng_state, save_state

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.complex64,
]  # fmt: skip


def bits(tensor: torch.Tensor) -> tuple:
    return tensor.dtype, tensor.shape, bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())


def same(a, b) -> bool:
    """Equal in type, order, and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return bits(a) == bits(b)
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return a == b


def round_trip(folder, state):
    save_state(folder, "state", state)
    return load_state(folder, "state")


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        (),
        {"a": [1, (2, [3.0], ()), None, True, False, "ü\n\0\u2028"], "b": {}},
        {1: "int key", "1": "its string", -3: {0: (0,)}},
        {"$tensor": "no mark", "$dict": [["x", 1]], "plain": {"$x": 1}, "": 0},
        [0.1 + 0.2, 1e-320, -0.0, 2.0, 1.7976931348623157e308, 10**40],
        [math.inf, -math.inf, math.nan, struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]],
        random.Random(3).getstate(),
        torch.tensor(2.5),
    ],
    ids=repr,
)
def test_everything_that_json_lacks_comes_back(tmp_path, state):
    assert same(round_trip(tmp_path, state), state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
def test_every_dtype_and_shape(tmp_path, dtype, shape):
    count = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8)  # NaNs with payloads too
    tensor = raw.view(dtype).reshape(shape)
    assert same(round_trip(tmp_path, {"x": tensor}), {"x": tensor})


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {
        "whole": whole,
        "again": whole,
        "row": whole[1],
        "t": whole.T,
        "step": whole[:, ::2],
        "wide": whole[0].expand(2, 4),
    }
    loaded = round_trip(tmp_path, state)
    assert same(loaded, state)
    loaded["whole"].zero_()
    assert torch.equal(loaded["again"], whole)


def test_parameters_come_back_as_tensors(tmp_path):
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    (loaded,) = round_trip(tmp_path, [weight])
    assert type(loaded) is torch.Tensor
    assert not loaded.requires_grad
    assert torch.equal(loaded, weight.detach())


def test_names_in_the_tensor_file_never_collide(tmp_path):
    state = {
        "a/b": torch.tensor(1),
        "a": {"b": torch.tensor(2), "b'": torch.tensor(3)},
        0: torch.tensor(4),
        "0": torch.tensor(5),
    }
    assert same(round_trip(tmp_path, state), state)
    assert same(round_trip(tmp_path, {"__metadata__": torch.tensor(1)}), {"__metadata__": torch.tensor(1)})


def test_a_model_state_dict_comes_back_as_a_dict(tmp_path):
    state = torch.nn.Linear(2, 1).state_dict()
    assert isinstance(state, OrderedDict)
    assert same(round_trip(tmp_path, state), dict(state))


@pytest.mark.parametrize("value", [{1, 2}, numpy.float64(1), print, {1.5: 0}, {(1,): 0}, b"x"], ids=repr)
def test_other_types_are_refused_with_their_place(tmp_path, value):
    with pytest.raises(TypeError, match=r"^/outer/1: "):
        save_state(tmp_path, "state", {"outer": [0, value]})


def trained(optimizer_class, steps: int):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    optimizer = optimizer_class(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(steps):
        advance(model, optimizer, scheduler, step)
    return model, optimizer, scheduler


def advance(model, optimizer, scheduler, step: int) -> None:
    optimizer.zero_grad()
    model(torch.full((1, 3), float(step))).square().sum().backward()
    optimizer.step()
    scheduler.step()


@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD])
def test_an_optimizer_goes_on_exactly(tmp_path, optimizer_class):
    model, optimizer, scheduler = trained(optimizer_class, 3)
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    loaded = round_trip(tmp_path, parts)
    fresh_model, fresh_optimizer, fresh_scheduler = trained(optimizer_class, 0)
    fresh_model.load_state_dict(loaded["model"])
    fresh_optimizer.load_state_dict(loaded["optimizer"])
    fresh_scheduler.load_state_dict(loaded["scheduler"])
    assert same(fresh_optimizer.state_dict(), optimizer.state_dict())
    for step in range(3, 6):
        advance(model, optimizer, scheduler, step)
        advance(fresh_model, fresh_optimizer, fresh_scheduler, step)
    assert same(dict(fresh_model.state_dict()), dict(model.state_dict()))


def draws() -> list:
    return [random.random(), random.gauss(0, 1), *numpy.random.normal(size=3).tolist(), *torch.randn(3).tolist()]


def test_generators_continue_where_they_were(tmp_path):
    for skipped in range(3):  # odd and even: NumPy and Python keep the second normal of a pair
        for _ in range(skipped):
            random.gauss(0, 1), numpy.random.normal()
        state = rng_state()
        expected = draws()
        draws()
        restore_rng_state(round_trip(tmp_path, state))
        assert draws() == expected


def test_no_pickle_on_disk(tmp_path):
    save_state(tmp_path, "state", {"rng": rng_state()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def saved(folder):
    save_state(folder, "state", {"a": torch.arange(4), "b": [1, torch.ones(2)], "c": (math.nan,)})
    return folder / "state.json", folder / "state.safetensors"


@pytest.mark.parametrize("which", [0, 1], ids=["json", "safetensors"])
@pytest.mark.parametrize(
    "harm", [lambda raw: None, lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: b"\xff" + raw[1:]],
    ids=["missing", "empty", "cut", "other bytes"],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, which, harm):
    file = saved(tmp_path)[which]
    content = harm(file.read_bytes())
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name} cannot be read"):
        load_state(tmp_path, "state")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"/a"', '"/x"'), ("$tuple", "$tuble"), ("$float", "$tensor"), ("7ff8", "7f"), ('{"$tensor": "/a"}', "1")],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, old, new):
    file, _ = saved(tmp_path)
    text = " ".join(file.read_text().split()).replace("{ ", "{").replace(" }", "}")
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"state\.(json|safetensors).*damaged"):
        load_state(tmp_path, "state")
