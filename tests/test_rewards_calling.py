"""Async rewards, time-outs and clipping: answers arrive, slow ones are named, and nothing hangs."""

import asyncio
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from rlhf.rewards import RewardError, RewardSpec, RewardSum, SpanReward, WeightedReward
from rlhf.rewards.calling import Background, TimeLimitError, call


async def lengths(prompts, completions, **columns):
    await asyncio.sleep(0)
    return [len(text) for text in completions]


class Lengths:
    """An object whose __call__ is async, with state made on the loop, as a network client's would be."""

    def __init__(self, factor: int = 1) -> None:
        self.factor, self.lock, self.loops = factor, None, set()

    async def __call__(self, prompts, completions, **columns):
        self.lock = self.lock or asyncio.Lock()
        self.loops.add(id(asyncio.get_running_loop()))
        async with self.lock:
            await asyncio.sleep(0.001)
        return [self.factor * len(text) for text in completions]


def slow_on(word, seconds=30.0):
    def reward(prompts, completions, **columns):
        if any(word in text for text in completions):
            time.sleep(seconds)
        return [0.0] * len(completions)

    return reward


def async_slow_on(word, canceled):
    async def reward(prompts, completions, **columns):
        try:
            if any(word in text for text in completions):
                await asyncio.sleep(30)
        except asyncio.CancelledError:
            canceled.append(completions)
            raise
        return [0.0] * len(completions)

    return reward


def test_async_rewards_are_awaited_in_a_sum():
    def plain(prompts, completions, **columns):
        return [1.0] * len(completions)

    async def scaled(prompts, completions, factor, **columns):
        return [factor * len(text) for text in completions]

    rewards = [
        WeightedReward("function", lengths, 2.0),
        WeightedReward("object", Lengths(3)),
        WeightedReward("plain", plain),
        WeightedReward("arguments", partial(scaled, factor=10), timeout=5.0),
    ]
    scores = RewardSum(rewards)(["p", "q"], ["a", "bc"], {})
    assert scores.components == {"function": [1, 2], "object": [3, 6], "plain": [1, 1], "arguments": [10, 20]}
    assert scores.total == [2 + 3 + 1 + 10, 4 + 6 + 1 + 20]


def test_every_call_runs_on_the_same_loop_and_inside_another_one_too():
    reward = Lengths()
    rewards = RewardSum([WeightedReward("object", reward)])

    async def caller():
        return rewards(["p"], ["abc"], {}).total

    assert asyncio.run(caller()) == [3.0]
    assert rewards(["p"], ["abc"], {}).total == [3.0]
    assert len(reward.loops) == 1


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_an_exception_in_an_async_reward_names_its_sample(timeout):
    async def fragile(prompts, completions, **columns):
        if "bad" in completions:
            raise TimeoutError("the server did not answer")  # a reward's own, not our limit
        return [0.0] * len(completions)

    rewards = RewardSum([WeightedReward("remote", fragile, timeout=timeout)])
    with pytest.raises(RewardError, match=r"'remote' raised TimeoutError: the server .* \(sample 1:.*'bad'\)"):
        rewards(["p"] * 3, ["a", "bad", "c"], {})


def test_without_a_limit_a_plain_reward_runs_in_the_calling_thread():
    threads = []

    def where(prompts, completions, **columns):
        threads.append(threading.current_thread())
        return [0.0]

    RewardSum([WeightedReward("where", where)])(["p"], ["c"], {})
    assert threads == [threading.current_thread()]


def test_a_slow_completion_is_named_with_reward_limit_and_prompt():
    rewards = RewardSum([WeightedReward("slow", slow_on("stuck"), timeout=0.5)])
    started = time.monotonic()
    with pytest.raises(RewardError) as caught:
        rewards(["ask one", "ask two", "ask three"], ["a", "stuck", "c"], {})
    assert time.monotonic() - started < 20  # not the thirty seconds of the completion
    assert str(caught.value) == (
        "reward 'slow' ran out of time: more than 0.5 s for one completion "
        "(sample 1: prompt 'ask two', completion 'stuck')"
    )


def test_a_slow_async_reward_is_canceled():
    canceled = []
    rewards = RewardSum([WeightedReward("slow", async_slow_on("stuck", canceled), timeout=0.5)])
    with pytest.raises(RewardError, match=r"'slow' ran out of time: more than 0.5 s for one completion \(sample 1: "):
        rewards(["p", "p"], ["a", "stuck"], {})
    for _ in range(100):
        if len(canceled) == 2:
            break
        time.sleep(0.01)
    assert canceled == [["a", "stuck"], ["stuck"]]


def test_an_async_reward_that_blocks_the_loop_does_not_hang_the_next():
    async def blocks(prompts, completions, **columns):
        time.sleep(30)
        return [0.0]

    with pytest.raises(RewardError, match=r"more than 0.05 s for 1 completions at 0.05 s each \(sample 0"):
        RewardSum([WeightedReward("blocks", blocks, timeout=0.05)])(["p"], ["c"], {})
    started = time.monotonic()
    assert RewardSum([WeightedReward("next", lengths)])(["p"], ["abc"], {}).total == [3.0]
    assert time.monotonic() - started < 20


def test_the_limit_grows_with_the_batch():
    def one_tick_each(prompts, completions, **columns):
        time.sleep(0.05 * len(completions))
        return [0.0] * len(completions)

    rewards = RewardSum([WeightedReward("ticks", one_tick_each, timeout=0.25)])
    assert rewards(["p"] * 8, ["c"] * 8, {}).total == [0.0] * 8  # 0.4 s in all: more than one limit, less than eight


def test_a_reward_that_is_slow_only_as_a_batch_names_the_batch():
    def quadratic(prompts, completions, **columns):
        time.sleep(0.04 * len(completions) ** 2)
        return [0.0] * len(completions)

    rewards = RewardSum([WeightedReward("quadratic", quadratic, timeout=0.2)])
    with pytest.raises(RewardError, match=r"more than 1.6 s for 8 completions at 0.2 s each \(sample 0"):
        rewards(["p"] * 8, ["c"] * 8, {})


def test_a_given_up_thread_does_not_keep_the_program_alive():
    code = (
        "import time\nfrom rlhf.rewards import *\n"
        "slow = WeightedReward('slow', lambda **batch: time.sleep(60), timeout=0.1)\n"
        "try: RewardSum([slow])(['p'], ['c'], {})\nexcept RewardError as error: print(error)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "reward 'slow' ran out of time" in done.stdout
    assert time.monotonic() - started < 20


def test_call_returns_what_the_function_returns():
    assert call(lambda x: x + 1, {"x": 1}) == 2
    assert call(lambda x: x + 1, {"x": 1}, 5.0) == 2
    with pytest.raises(TimeLimitError):
        call(lambda: time.sleep(5), {}, 0.1)


def test_clipping_bounds_what_enters_the_sum_and_leaves_the_log_alone():
    items = [-5.0, 0.5, None, SpanReward(3.0)]
    rewards = RewardSum([WeightedReward("fixed", lambda **batch: items, weight=2.0, clip=1.0)])
    scores = rewards(["p"] * 4, ["c"] * 4, {})
    assert scores.total == [-2.0, 1.0, 0.0, 2.0]
    assert scores.components == {"fixed": [-5.0, 0.5, None, 3.0]}


@pytest.mark.parametrize("name", ["timeout", "clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_must_be_positive_and_finite(name, value):
    with pytest.raises(RewardError, match=f"{name} {value} must be finite and greater than 0"):
        RewardSpec(path="length", **{name: value})


def test_specs_hand_limits_on():
    spec = RewardSpec(path="length", args={"maximum": 1}, timeout=2.0, clip=0.5)
    [reward] = RewardSum.from_specs([spec]).rewards
    assert (reward.timeout, reward.clip) == (2.0, 0.5)


def test_calls_in_the_background_come_in_turn():
    background, order, running = Background(), [], threading.Lock()

    def score(number: int, seconds: float) -> int:
        assert running.acquire(blocking=False), "two at once"
        time.sleep(seconds)
        order.append(number)
        running.release()
        return 10 * number

    futures = [background.submit(score, number=number, seconds=0.05 - 0.02 * number) for number in range(3)]
    failing = background.submit(lambda: 1 / 0)
    last = background.submit(score, number=3, seconds=0.0)
    assert [future.result(5) for future in [*futures, last]] == [0, 10, 20, 30]
    assert order == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        failing.result(5)


def test_a_reward_that_hangs_in_the_background_does_not_hold_up_the_end_of_the_program():
    code = """if True:
        import time
        from rlhf.rewards.calling import Background
        Background().submit(lambda: time.sleep(60))
    """
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert time.monotonic() - started < 30


BUSY = {
    "given up": "with contextlib.suppress(TimeLimitError): call(spin, {}, 0.1)",
    "in the background": "Background().submit(spin); time.sleep(0.1)",
    "in the event loop": "with contextlib.suppress(TimeLimitError): call(spin_in_loop, {}, 0.1)",
    "idle": "call(answer, {}, 1.0)",
}


@pytest.mark.parametrize("case", BUSY)
def test_a_thread_in_the_middle_of_torch_does_not_abort_the_program_at_its_end(case):
    code = f"""if True:
        import contextlib, time, torch
        from rlhf.rewards import threads
        from rlhf.rewards.calling import Background, TimeLimitError, call
        threads.SECONDS_TO_STOP = 120.0
        def spin():
            x = torch.ones(200, 200)
            while True:
                x = torch.tanh(x @ x)
        async def spin_in_loop():
            spin()
        async def answer():
            return 1
        {BUSY[case]}
    """
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "terminate" not in done.stderr
    assert time.monotonic() - started < 100  # none of them was waited for in vain


def test_what_has_run_out_of_time_stops_at_its_next_line():
    stopped = threading.Event()

    def spin():
        try:
            while True:
                time.sleep(0.01)
        finally:
            stopped.set()

    with pytest.raises(TimeLimitError):
        call(spin, {}, 0.1)
    assert stopped.wait(5)
