"""What the command line prints as a single line: a user's mistake, and a run that was asked to stop."""


class UserError(ValueError):
    """Something the user can mend: the message gives the name, the value, the constraint and what to do."""


class OtherRankError(UserError):
    """Another process has failed, and says so itself."""


class Interrupted(Exception):  # noqa: N818
    """A run has saved its state and stopped on request; the message says how it goes on, the exit status is 0."""
