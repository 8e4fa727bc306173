"""Variables of the spec are bound by the rule of ``base.variables``, as the gateway's are."""

from tidegate.base.variables import Bound, bind

__all__ = ["Bound", "bind"]
