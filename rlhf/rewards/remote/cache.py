"""Answers on disk, found again by what was asked."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from rlhf.rewards.contract import ServiceError

SECONDS_TO_WAIT = 60.0  # for another process that writes


class AnswerCache:
    """A file of answers; several processes may share it.

    Args:
        file: Created with its folders; None keeps nothing.

    Raises ValueError for a file that is none of ours, ServiceError for one that cannot be read or written later.
    """

    def __init__(self, file: str | None) -> None:
        self.file = None if file is None else Path(file).expanduser()
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise ValueError(f"cache {str(self.file)!r} cannot be used ({error}); name another file") from error

    def read(self, requests: list[Any]) -> list[str | None]:
        """The answer to each request, None where there is none yet."""
        return [self._run("SELECT answer FROM answers WHERE key = ?", key_of(request)) for request in requests]

    def write(self, request: Any, answer: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", key_of(request), answer)

    def _run(self, statement: str, *values: str) -> str | None:
        if self.file is None:
            return None
        try:
            with closing(self._open()) as database, database:
                row = database.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise ServiceError(f"cache {str(self.file)!r} cannot be used ({error}); move it away") from error
        return None if row is None else str(row[0])

    def _open(self) -> sqlite3.Connection:
        assert self.file is not None
        return sqlite3.connect(self.file, timeout=SECONDS_TO_WAIT)


def key_of(request: Any) -> str:
    """The SHA-256 of what was asked, however its keys are ordered."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
