"""The one exception that a user's mistake raises; the command line prints it as a single line."""


class UserError(ValueError):
    """Something the user can mend: the message gives the name, the value, the constraint and what to do."""
