"""Rendering of React components to HTML, in processes from which nothing else can be reached."""

from rlhf.rewards.react.render.installation import RenderUnavailableError, find_installation
from rlhf.rewards.react.render.pool import Rendered, RenderPool, shared_pool

__all__ = ["RenderPool", "RenderUnavailableError", "Rendered", "find_installation", "shared_pool"]
