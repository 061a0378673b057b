"""`rlhf setup-render` has nothing to set: versions come from our lock file, the folder from XDG_CACHE_HOME."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SetupRenderConfig:
    """React and sucrase for the rewards that render, by our lock file, into `${XDG_CACHE_HOME:-~/.cache}/rlhf/render`.

    Needs Node 18 or newer with npm. Run it again after an update of this package.
    """
