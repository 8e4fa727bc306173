"""What operators have killed or capped, ready to be asked by each request; pure but for its memory.

One board is made for each snapshot of the switches, and none while nothing is killed or capped.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.base import RequestError
from tidegate.gateway.killed import LIFTED, model_killed
from tidegate.gateway.plan import Plan
from tidegate.gateway.values import Switched
from tidegate.switches import EVERY, Cap, Kill, KillKind, SwitchSnapshot


class Switchboard:
    """The kills and caps of one snapshot."""

    def __init__(self, snapshot: SwitchSnapshot) -> None:
        self._kills = snapshot.kills
        self._caps = snapshot.caps
        self._routes = self._names("route")
        self._tenants = self._names("tenant")
        self._models = self._names("model")
        self._tools = self._names("tool")
        self._by_route: dict[str, Switched] = {}

    def admit(self, plan: Plan, tenant: str | None) -> Switched:
        """What is switched for a request to ``plan``. Raises RequestError where it is killed: 403
        for a tenant, 503 for a route, or for the last of its models where neither a stale answer
        nor a fixed text may stand in."""
        route = plan.route
        if tenant is not None and tenant in self._tenants:
            raise _tenant_killed(tenant)
        if route.name in self._routes:
            raise _route_killed(route.name)
        stand_in = route.stale is not None or route.template is not None
        if self._models.issuperset(route.models) and not stand_in:
            raise model_killed(route.name, route.models)
        found = self._by_route.get(route.name)
        if found is None:
            found = self._by_route[route.name] = self._of(route.name)
        return found

    def _names(self, kind: KillKind) -> frozenset[str]:
        return frozenset(one.name for one in self._kills if one.kind == kind)

    def _of(self, route: str) -> Switched:
        caps = {cap.route: cap for cap in self._caps if cap.route in (route, EVERY)}
        own, every = caps.get(route, Cap()), caps.get(EVERY, Cap())
        return Switched(
            prompt_tokens=_least(own.prompt_tokens, every.prompt_tokens),
            output_tokens=_least(own.output_tokens, every.output_tokens),
            surge=own.surge or every.surge,
            killed_over=_least(*_over(self._kills, route)),
            models=self._models,
            tools=self._tools,
        )


def switchboard(snapshot: SwitchSnapshot) -> Switchboard | None:
    """The board of ``snapshot``; None when nothing is killed or capped."""
    return Switchboard(snapshot) if snapshot.kills or snapshot.caps else None


def _over(kills: Iterable[Kill], route: str) -> list[int | None]:
    return [one.tokens for one in kills if one.kind == "prompts" and one.name in (route, EVERY)]


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _tenant_killed(tenant: str) -> RequestError:
    return RequestError(
        403,
        "tenant_killed",
        f"requests of tenant {tenant!r} are switched off by an operator",
        cure=LIFTED,
    )


def _route_killed(route: str) -> RequestError:
    return RequestError(
        503,
        "route_killed",
        f"route {route!r} is switched off by an operator",
        cure=f"ask another route, or {LIFTED}",
        param="model",
    )
