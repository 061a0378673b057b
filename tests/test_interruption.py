"""Real signals to this process, and to a command."""

import os
import signal
import threading

import pytest

from rlhf import cli
from rlhf.errors import Interrupted
from rlhf.runs.interruption import catch_termination


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop(number):
    with catch_termination() as termination:
        assert not termination.requested
        send(number)
        assert termination.requested


def test_sigterm_may_come_again_and_ctrl_c_after_it(capfd):
    with catch_termination() as termination:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert capfd.readouterr().err == ""
        send(signal.SIGINT)
        assert termination.requested


def test_a_second_ctrl_c_stops_at_once(capfd):
    with catch_termination() as termination:
        send(signal.SIGINT)
        assert termination.requested
        assert "Ctrl-C again" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_put_back(fails):
    received = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, frame: received.append(number)) for number in numbers]
    try:
        try:
            with catch_termination():
                send(signal.SIGINT)
                if fails:
                    raise RuntimeError("in the middle of a step")
        except RuntimeError:
            pass
        assert received == []
        for number in numbers:
            send(number)
        assert received == list(numbers)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_harmless_in_another_thread():
    before = signal.getsignal(signal.SIGTERM)
    outcomes = []

    def enter() -> None:
        with catch_termination() as termination:
            outcomes.append((signal.getsignal(signal.SIGTERM), termination.requested))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert outcomes == [(before, False)]


def test_an_interrupted_command_is_one_line_and_status_0(monkeypatch, capsys):
    def stop(name, argv):
        raise Interrupted("stopped at step 3 with a checkpoint; the same command continues")

    monkeypatch.setattr(cli, "run_stage", stop)
    cli.main(["ppo"])
    assert capsys.readouterr() == ("rlhf ppo: stopped at step 3 with a checkpoint; the same command continues\n", "")
