"""W&B that is down, hangs, dies, or has no key."""

import socket
from collections.abc import Callable

from faults.fault import Fault, once
from faults.trial import Trial

KEY = "0" * 40
LIMIT = 120.0
"""Twice the 20 s that a server may cost a run at its start and at its end, and the run."""
LOGGED = {"at": "rlhf.tracking.tracker:Tracker.log", "nth": 3}


def without_key(trial: Trial) -> None:
    """Nobody is logged in: offline, and no question is asked."""
    online(trial, None)
    trial.finished(trial.start(limit=LIMIT))
    kept_offline(trial)


def down(trial: Trial) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    online(trial, address)  # where nobody listens any more
    trial.finished(trial.start(limit=LIMIT), "W&B cannot be reached .*; logging offline")
    kept_offline(trial)


def hanging(trial: Trial) -> None:
    """The server takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        online(trial, server.getsockname())
        trial.finished(trial.start(limit=LIMIT), "W&B cannot be reached .*; logging offline")
    kept_offline(trial)


def process_killed(trial: Trial) -> None:
    """W&B works in a process of its own; without it the run goes on."""
    trial.environment["WANDB_MODE"] = "offline"
    trial.finished(trial.start({"do": "kill_children", **LOGGED, "named": "wandb"}, limit=LIMIT), "the run goes on")
    trial.equal()


def online(trial: Trial, address: tuple[str, int] | None) -> None:
    """As for somebody who is logged in at that address, or not at all."""
    home = trial.folder / "home"
    home.mkdir(parents=True)
    trial.environment |= {"WANDB_MODE": None, "HOME": str(home), "NETRC": str(home / "netrc")}
    if address:
        trial.environment |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{address[1]}"}


def kept_offline(trial: Trial) -> None:
    """The same numbers as in the undisturbed run, and W&B's own file to be uploaded later."""
    trial.equal()
    if not list(trial.run.rglob("offline-run-*")):
        trial.fail("W&B has kept nothing")


def faults() -> list[Fault]:
    """All of this kind."""
    attacks: list[tuple[str, str, Callable[[Trial], None]]] = [
        ("tracker key missing", "logs offline; the same numbers", without_key),
        ("tracker down", "one line, logs offline; the same numbers", down),
        ("tracker hanging", "one line within 20 s, logs offline; the same numbers", hanging),
        ("tracker's process killed", "one line; the same numbers", process_killed),
    ]
    return [
        Fault(name=name, where="ppo, W&B", expected=expected, attacks=once(attack))
        for name, expected, attack in attacks
    ]
