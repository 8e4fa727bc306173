"""The pinned template with its declared inputs, the route's tools, schema and caps."""

from tidegate.gateway.render.run import clamp_surge, render
from tidegate.gateway.render.template import Template, compile_template

__all__ = ["Template", "clamp_surge", "compile_template", "render"]
