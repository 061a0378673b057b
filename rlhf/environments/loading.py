"""From the config's `environment` to something that makes one for every episode."""

from collections.abc import Callable
from typing import Any

from rlhf.config import EnvironmentSpec
from rlhf.config.environment import ENVIRONMENTS
from rlhf.environments.contract import Environment
from rlhf.errors import EpisodeError, RewardError, with_kind
from rlhf.rewards.arguments import require_options
from rlhf.rewards.loading import imported


def load_environment(spec: EnvironmentSpec) -> Callable[[], Environment]:
    """What makes an environment per episode; one is made at once, so that what is wrong with it shows now.

    Raises EpisodeError if the path leads nowhere, or to something that is no environment or refuses `args`.
    """
    what = f"environment {spec.name!r}"
    kind = imported(ENVIRONMENTS.get(spec.name, spec.name), what, EpisodeError)
    if not callable(kind):
        raise EpisodeError(f"{what} is a {type(kind).__name__}; it must be a class, or a function that makes one")

    def make() -> Environment:
        environment: Environment = kind(**spec.args)
        return environment

    try:
        if isinstance(kind, type):
            require_options(kind, spec.args)
        first: Any = make()
    except RewardError as error:  # a library that the built-in rewards need, too
        raise EpisodeError(f"{what}: {error}") from error
    except (TypeError, ValueError) as error:
        raise EpisodeError(f"{what}: {error}") from error
    except Exception as error:
        raise EpisodeError(f"{what} cannot be made: {with_kind(error)}") from error
    for method in ("reset", "step"):
        if not callable(getattr(first, method, None)):
            raise EpisodeError(f"{what} has no method {method}; it needs reset and step")
    return make
