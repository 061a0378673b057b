"""An error's words as the one line that the user reads."""

import pytest

from rlhf.errors import first_line, one_line, with_kind


@pytest.mark.parametrize(
    ("said", "first", "whole", "kind"),
    [
        ("no such\n  repository", "no such", "no such repository", "OSError: no such repository"),
        ("\n  gone \n", "gone", "gone", "OSError: gone"),
        ("", "OSError", "OSError", "OSError"),
    ],
)
def test_what_an_error_says(said, first, whole, kind):
    error = OSError(said)
    assert (first_line(error), one_line(error), with_kind(error)) == (first, whole, kind)
