"""Addresses of the operator's door and the gateway: arguments, variables, then the app folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tidegate.base import RuntimeStateError
from tidegate.sdk.rules import HttpOrigin, origin_of


class ExportTarget(NamedTuple):
    """The addresses that spans and trace context go to; ``gateway`` is None while it is unknown."""

    operator_url: str
    token: str | None
    gateway: HttpOrigin | None


class Sources(NamedTuple):
    """The arguments of ``start``, resolved again after each failure: an app finds a restarted
    ``tidegate up`` without a restart of its own."""

    app_or_endpoint: str | None
    token: str | None
    gateway_url: str | None

    def resolve(self, env: Mapping[str, str] = os.environ) -> ExportTarget:
        """The target; RuntimeStateError ``not_running``, ``runtime_unreadable`` or ``no_operator``
        when there is none."""
        given = self.app_or_endpoint or env.get("TIDEGATE_OPERATOR_URL") or "."
        gateway_url = self.gateway_url or env.get("TIDEGATE_GATEWAY_URL")
        token = self.token or env.get("TIDEGATE_OPERATOR_TOKEN")
        if given.startswith(("http://", "https://")):
            if origin_of(given) is None:
                raise RuntimeStateError(
                    "no_operator",
                    f"{given!r} is not an address",
                    cure="give http://HOST:PORT of the operator's door",
                )
            return ExportTarget(
                given.rstrip("/").removesuffix("/v1/traces"),
                token,
                origin_of(gateway_url) if gateway_url else None,
            )
        return self._from_folder(Path(given), token, gateway_url)

    def _from_folder(self, app: Path, token: str | None, gateway_url: str | None) -> ExportTarget:
        # Imported here: an app that is told its endpoint does not pay for psutil.
        from tidegate.base import read_runtime

        try:
            runtime = read_runtime(app.parent if app.is_file() else app)
        except OSError as error:
            raise RuntimeStateError(
                "runtime_unreadable",
                f"the runtime file of {app} cannot be read: {error}",
                cure="run the app as the user of tidegate up, or set TIDEGATE_OPERATOR_URL",
            ) from None
        return ExportTarget(
            runtime.operator_url,
            token or runtime.operator_token,
            origin_of(gateway_url or runtime.gateway_url),
        )
