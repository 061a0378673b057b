"""Asking a service over HTTP: many requests at once, each with a time limit, tried again where that may help."""

import asyncio
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from rlhf.rewards.contract import LogMetric, ServiceError, shorten

WORTH_ANOTHER_TRY = (408, 425, 429)  # and whatever the server calls its own fault, from 500 on
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; doubled after each try, and chance takes up to half of it
MAX_ANSWER = 10_000_000  # bytes

T = TypeVar("T")


class Client:
    """Posts JSON to one URL.

    Args:
        url: Where to.
        timeout: Seconds for one try, from the connection to the last byte.
        retries: Further tries for a request whose answer does not come, is the server's fault (408, 425, 429, 5xx) or
            is not what was agreed.
        concurrency: Requests under way at once.
        key_env: Name of the environment variable that holds the key, sent as `Authorization: Bearer`; the key
            itself stands in no config and no message.

    Raises ValueError for a URL that is not http(s), numbers that make no sense, and a variable that is not set.
    """

    def __init__(self, url: str, timeout: float, retries: int, concurrency: int, key_env: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {_without_query(url)!r} must begin with http:// or https:// and a host")
        if parts.username or parts.password:
            raise ValueError(f"the url of {parts.hostname} holds a password, and would be written down; use key_env")
        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise ValueError(
                f"timeout {timeout}, retries {retries}, concurrency {concurrency}: need timeout > 0, retries >= 0, "
                "concurrency >= 1"
            )
        if key_env and not os.environ.get(key_env):
            raise ValueError(f"the environment variable {key_env} is not set; key_env names it")
        self.url, self.timeout, self.retries, self.concurrency = url, timeout, retries, concurrency
        self.key_env = key_env

    async def post_all(
        self, bodies: Sequence[dict[str, Any]], read: Callable[[Any, int], T], log_metric: LogMetric | None, name: str
    ) -> list[T]:
        """What `read(answer, number of the body)` makes of the JSON answer to each body; it raises ValueError.

        Failed tries are counted and logged as the metrics `NAME_errors/KIND`. Raises ServiceError, with the counts,
        once a request has used up its tries or got an answer that no other try will change.
        """
        failures: Counter[str] = Counter()
        free = asyncio.Semaphore(self.concurrency)
        headers = {"Authorization": f"Bearer {os.environ[self.key_env]}"} if self.key_env else {}
        async with httpx.AsyncClient(headers=headers, timeout=None) as client:  # the limit of a try is ours

            async def ask(number: int) -> T:
                async with free:
                    answer = await self._answer(client, bodies[number], lambda given: read(given, number), failures)
                return answer

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(number)) for number in range(len(bodies))]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                for kind, count in failures.items():
                    if log_metric:
                        log_metric(f"{name}_errors/{kind}", count)
        return [task.result() for task in tasks]

    async def _answer(
        self, client: httpx.AsyncClient, body: dict[str, Any], read: Callable[[Any], T], failures: Counter[str]
    ) -> T:
        mine: Counter[str] = Counter()
        for attempt in itertools.count():
            try:
                return await self._try(client, body, read)
            except _TryError as failure:
                mine[failure.kind] += 1
                failures[failure.kind] += 1
                if not failure.may_pass or attempt == self.retries:
                    counts = ", ".join(f"{count} x {kind}" for kind, count in mine.items())
                    said = f"{_without_query(self.url)} failed ({counts}); the last time: {failure}"
                    raise ServiceError(said) from None
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(pause, min(LONGEST_PAUSE, failure.retry_after)))
        raise AssertionError

    async def _try(self, client: httpx.AsyncClient, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        content = bytearray()
        try:
            async with asyncio.timeout(self.timeout), client.stream("POST", self.url, json=body) as answer:
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER:
                        raise _TryError("bad_answer", f"an answer of more than {MAX_ANSWER} bytes", may_pass=False)
        except TimeoutError:
            raise _TryError("timeout", f"no whole answer within {self.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise _TryError("connection", self._safe(f"{type(error).__name__}: {error}")) from None
        said = self._safe(content.decode("utf-8", "replace"))
        if not answer.is_success:
            code = answer.status_code
            may_pass = code >= 500 or code in WORTH_ANOTHER_TRY
            raise _TryError(f"http_{code}", f"HTTP {code} {said}", may_pass, _seconds_to_wait(answer))
        try:
            return read(json.loads(content))
        except (ValueError, RecursionError) as error:  # what is no JSON, and what is not what was agreed
            raise _TryError("bad_answer", f"{self._safe(str(error))} in {said}") from None

    def _safe(self, text: str) -> str:
        """A message from the server, short, on one line and without the key."""
        key = os.environ.get(self.key_env or "", "")
        return shorten(" ".join((text.replace(key, "***") if key else text).split()), 200)


class _TryError(Exception):
    """One try: its kind for the count, whether another may pass, and the seconds that the server asks to wait."""

    def __init__(self, kind: str, said: str, may_pass: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(said)
        self.kind, self.may_pass, self.retry_after = kind, may_pass, retry_after


def _seconds_to_wait(answer: httpx.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", 0)))
    except ValueError:  # a date
        return 0.0


def _without_query(url: str) -> str:
    return url.partition("?")[0]
