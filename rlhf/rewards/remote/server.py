"""A reward that lives behind a URL: a service of your own that gives scores."""

from typing import Any

from rlhf.rewards.arguments import columns_of_data
from rlhf.rewards.calling import call
from rlhf.rewards.contract import LogMetric
from rlhf.rewards.numbers import finite
from rlhf.rewards.remote.client import Client
from rlhf.rewards.turns import NamedReward


class Server(NamedReward):
    """Scores from a server, which receives JSON, `batch_size` samples at a time, and answers with JSON.

        POST url   {"prompts": [...], "completions": [...], "columns": {"reference": [...], ...}}
        answer     {"scores": [0.5, null, ...]}

    Prompts and completions are strings or lists of messages, as every reward gets them; a score is a number, or null
    where the reward does not apply. `timeout` is in seconds for one try. A request that fails is tried `retries` times
    more, after growing pauses; failed tries are counted in the metrics `server_errors/KIND`. `concurrency` requests are
    under way at once. `key_env` names an environment variable whose value is sent as a bearer token.

    Raises ValueError for options that make no sense, and, when called, RewardError for a server that keeps failing.
    """

    def __init__(
        self,
        url: str,
        *,
        batch_size: int = 32,
        timeout: float = 60.0,
        retries: int = 5,
        concurrency: int = 4,
        key_env: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        self.batch_size = batch_size
        self.client = Client(url, timeout, retries, concurrency, key_env)

    def __call__(
        self, prompts: list[Any], completions: list[Any], log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        data = columns_of_data(columns)
        sizes = range(0, len(completions), self.batch_size)
        parts = [slice(start, min(start + self.batch_size, len(completions))) for start in sizes]
        bodies = [
            {
                "prompts": list(prompts[part]),
                "completions": list(completions[part]),
                "columns": {name: list(values[part]) for name, values in data.items()},
            }
            for part in parts
        ]
        read = {"bodies": bodies, "log_metric": log_metric, "name": self.__name__}
        scores = call(self.client.post_all, read | {"read": lambda answer, i: _scores(answer, bodies[i])})
        return [score for part in scores for score in part]


def _scores(answer: Any, body: dict[str, Any]) -> list[float | None]:
    """The scores in an answer; raises ValueError where it is not what was agreed."""
    scores, wanted = answer.get("scores") if isinstance(answer, dict) else None, len(body["prompts"])
    if not isinstance(scores, list) or len(scores) != wanted:
        raise ValueError(f'no list "scores" of {wanted} numbers')
    return [None if score is None else finite(score) for score in scores]
