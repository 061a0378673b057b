"""What the command line prints: a user's mistake, a run that was asked to stop, text of others made harmless."""

import re

# What would reorder or hide the text around it, or is no character at all: control characters but tab and line feed,
# direction marks and overrides, invisible operators and tags, line separators, half surrogate pairs.
_TROUBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


class UserError(ValueError):
    """Something the user can fix: the message gives the name, the value, the constraint and what to do."""


class RewardError(ValueError):
    """A reward could not be loaded, or gave something that is not a reward. The message is one line."""


class EpisodeError(UserError):
    """An environment could not be loaded or could not go on, or gave something that is no step. One line."""


class OtherRankError(UserError):
    """Another process has failed, and says so itself."""


class Interrupted(Exception):  # noqa: N818
    """A run has saved its state and stopped on request; the message says how it goes on, the exit status is 0."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, which often says a lot; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def with_kind(error: BaseException) -> str:
    """The same on one line behind its kind: `ConnectionError: the judge has gone away`."""
    kind, said = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {said}" if said else kind


def visible(text: str) -> str:
    """The text with every character that could disguise the text around it spelled out, as in ⟨U+202E⟩."""
    return _TROUBLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))
