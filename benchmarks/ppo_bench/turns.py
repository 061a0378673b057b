"""Processes that take turns."""

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any


class Worker:
    """A process that does something, reports, and does it again whenever it is asked to.

    Args:
        name: For the message when it dies.
        main: What it runs; gets the arguments and a connection, over which it sends reports and receives whether to
            go on.
    """

    def __init__(self, name: str, main: Callable[..., None], *arguments: Any) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=main, args=(*arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def report(self) -> Any:
        """The next report; raises RuntimeError if the process ends without one."""
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            status = self.process.exitcode
            raise RuntimeError(f"{self.name} ended with status {status} (-9: it was killed, out of memory?)") from None

    def again(self) -> Any:
        """The report of one more round."""
        self.connection.send(True)
        return self.report()

    def stop(self) -> None:
        """No more rounds."""
        self.connection.send(False)
        self.process.join()


def started(name: str, main: Callable[..., None], *arguments: Any) -> Worker:
    """A worker whose first round, in which everything is loaded and warmed up, is over."""
    worker = Worker(name, main, *arguments)
    worker.report()
    return worker


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, called in a process of its own."""
    worker = Worker(function.__name__, send_result, function, *arguments)
    result = worker.report()
    worker.process.join()
    return result


def send_result(function: Callable[..., Any], *given: Any) -> None:
    """Main function of that process."""
    *arguments, connection = given
    connection.send(function(*arguments))


def take_turns(workers: Sequence[Worker], rounds: int) -> list[list[Any]]:
    """The reports of each worker; what follows one another in time stands in the same place of all lists."""
    reports = [[worker.again() for worker in workers] for _ in range(rounds)]
    for worker in workers:
        worker.stop()
    return [list(column) for column in zip(*reports, strict=True)]
