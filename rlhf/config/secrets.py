"""What looks like a secret, by its key or by itself, and how it is hidden.

The rules for values are those of detect-secrets, but for its guesses (entropy, words, addresses), and a few for what
it does not know: Hugging Face, any `sk-` key, Google, `Bearer`, a password in an address, a whole private key.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "***"
NO_SECRET = re.compile(r"(?:per|bos|eos|eot|pad|unk|sep|cls|mask|stop|end|start|image)_token$", re.IGNORECASE)
SECRET_KEY = re.compile(r"token$|secret|password|api_?key|access_?key|private_?key|credential|authorization", re.I)
SECRET_SETTING = re.compile(
    r"(\w*(?:token|secret|password|api_?key|access_?key|private_?key|credentials?|authorization)['\"]?\s*[:=]\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,}\]]+)",
    re.IGNORECASE,
)
"""A key that looks like a secret's, as text, with its value."""
OWN_RULES = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    r"(?<![A-Za-z0-9])eyJ[\w=-]{8,}\.[\w=-]+(?:\.[\w=-]*)*",
    r"(?<![A-Za-z0-9])(?:hf|npm)_[A-Za-z0-9]{16,}",
    r"(?<![A-Za-z0-9])(?:sk|rk|pk)[-_](?:[\w-]*[A-Za-z0-9]{20,}|(?=[\w-]*\d)[\w-]{16,})",
    r"(?<![A-Za-z0-9])github_pat_\w{20,}",
    r"(?<![A-Za-z0-9])AIza[\w-]{30,}",
    r"(?i:\bbearer\s+)(?P<secret>[\w.~+/=-]{8,})",
    r"(?i:\bbasic\s+)(?P<secret>(?=[A-Za-z+/]*\d)[A-Za-z0-9+/]{12,}={0,2})",
    r"(?<=://)[^\s/@'\"]+:[^\s/@'\"]+(?=@)",
    r"(?<=://)[^\s/@:'\"]{16,}(?=@)",
    r"[?&]\w*(?i:key|token|secret|password|signature|sig)=(?P<secret>[^&\s#'\"]+)",
)
LEFT_OUT = ("ArtifactoryDetector", "BasicAuthDetector", "IPPublicDetector", "PrivateKeyDetector")
"""Rules of detect-secrets that take plain words and addresses for secrets, or that have a wider one above."""
SHORTEST_OF_ENVIRONMENT, SHORTEST_GROUP = 8, 20


def mask_text(text: str) -> str:
    """The text with `***` in the place of everything that looks like a secret, or is one of the environment's."""
    for value in of_environment():
        text = text.replace(value, MASK)
    for rule in rules():
        text = rule.sub(_without_group, text)
    return text


def mask_settings(text: str) -> str:
    """Likewise, and with `***` for what follows a key that looks like a secret's, as in `api_key: ...`."""
    return mask_text(SECRET_SETTING.sub(rf"\1{MASK}", text))


def mask_secrets(config: Any) -> Any:
    """A copy of a plain config with `***` for the value of every key that looks like a secret's, for every string with
    the value of an environment variable that does, and for what looks like a secret within a string."""
    known = of_environment()

    def masked(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: MASK if _is_of_a_secret(str(key), x) else masked(x) for key, x in item.items()}
        if isinstance(item, list):
            return [masked(x) for x in item]
        if not isinstance(item, str):
            return item
        return MASK if any(value in item for value in known) else mask_text(item)

    return masked(config)


def _is_of_a_secret(key: str, value: Any) -> bool:
    """Whether a key looks like a secret's; numbers of tokens and control tokens are none."""
    is_number = isinstance(value, int | float) and key.lower().endswith("token")
    return bool(value) and not is_number and bool(SECRET_KEY.search(key)) and not NO_SECRET.search(key)


def of_environment() -> list[str]:
    """The values of environment variables that are named like secrets, the longest first."""
    named = [value for name, value in os.environ.items() if SECRET_KEY.search(name)]
    return sorted((value for value in named if len(value) >= SHORTEST_OF_ENVIRONMENT), key=len, reverse=True)


@functools.cache
def rules() -> tuple[re.Pattern[str], ...]:
    """Patterns of values that are secrets whatever their key."""
    return (*map(re.compile, OWN_RULES), *_of_detect_secrets())


def _of_detect_secrets() -> Iterator[re.Pattern[str]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    kinds: Iterable[type] = get_mapping_from_secret_type_to_class().values()
    for kind in kinds:
        if issubclass(kind, RegexBasedDetector) and kind.__name__ not in LEFT_OUT:
            yield from kind().denylist


def _without_group(found: re.Match[str]) -> str:
    """The match with a mask for its secret part: the group of that name, or the last long one of detect-secrets."""
    group: str | int = "secret" if "secret" in found.re.groupindex else found.lastindex or 0
    if isinstance(group, int) and len(found[group] or "") < SHORTEST_GROUP:
        group = 0
    start, end = (place - found.start() for place in found.span(group))
    return f"{found[0][:start]}{MASK}{found[0][end:]}"
