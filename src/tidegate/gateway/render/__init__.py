"""The pinned template with its declared inputs, the route's tools, schema and caps."""

from tidegate.gateway.render.run import Rendered, clamp_surge, render

__all__ = ["Rendered", "clamp_surge", "render"]
