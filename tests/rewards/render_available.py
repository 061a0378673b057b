"""Whether the rendering tests can run here; with RLHF_REQUIRE_RENDER set they must, or else they fail."""

import os

import pytest

from rlhf.rewards.react.render.installation import RenderUnavailableError, find_installation


def missing() -> str:
    """Why components cannot be rendered here; empty if they can."""
    try:
        find_installation()
    except RenderUnavailableError as error:
        return str(error)
    return ""


needs_render = pytest.mark.skipif(bool(missing()) and not os.environ.get("RLHF_REQUIRE_RENDER"), reason=missing())
