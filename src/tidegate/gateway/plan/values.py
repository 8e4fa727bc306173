"""The plan of a route: everything that its requests depend on, compiled once and frozen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from tidegate.gateway.neutral import OfferedTool, OutputFormat
from tidegate.gateway.plan.checks import AnswerCheck
from tidegate.gateway.plan.limits import RouteLimits
from tidegate.gateway.plan.template import PromptTemplate
from tidegate.gateway.plan.terms import AskTerms
from tidegate.gateway.ports import ClientDialect
from tidegate.gateway.targets import Target
from tidegate.release import Model, Route

Redact = Callable[[str], str]


class Plan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One route of one release, or one of its variants."""

    route: Route
    release: str
    """Digest."""
    models: Mapping[str, Model]
    journeys: Collection[str]
    targets: tuple[Target, ...]
    """The model that answers, then its fallbacks."""
    fingerprint: bytes
    """Changes with anything that may change an answer (``release.fingerprint``)."""
    terms: AskTerms
    template: PromptTemplate | None = None
    tools: tuple[OfferedTool, ...] = ()
    format: OutputFormat | None = None
    limits: RouteLimits | None = None
    redact: Redact | None = None
    """Redacts the content of this route's requests before it is written."""
    variants: Mapping[str, Plan] = {}
    """What serves instead where the route's flag says so."""
    _written: dict[str, Mapping[str, bytes]] = msgspec.field(default_factory=dict)

    @property
    def checks(self) -> tuple[AnswerCheck, ...]:
        """What an answer must hold to before it counts."""
        return self.terms.checks

    def written(self, dialect: ClientDialect) -> Mapping[str, bytes]:
        """The route's tools and output format as fields of a request in ``dialect``: written once,
        the same for each request."""
        found = self._written.get(dialect.name)
        if found is None:
            fields: dict[str, bytes] = {}
            if self.tools:
                dialect.put_tools(fields, self.tools)
            if self.format is not None:
                dialect.put_format(fields, self.format)
            found = self._written[dialect.name] = fields
        return found
