"""The pinned template with its declared inputs, the route's tools, schema and caps."""

from tidegate.gateway.render.run import render
from tidegate.gateway.render.template import Template, compile_template

__all__ = ["Template", "compile_template", "render"]
