"""Serve an app whose parts are stand-ins on the real engines: ``python -m tests.deploy.standin``.

Arguments: the state folder, the address of a free port. Writes ``ready`` beside the state folder
once the app is ready. The gateway stand-in serves the files of the folder it runs in, so that
removing ``health`` or ``ready`` there makes it unhealthy or not ready. The pool stand-in does not
listen to SIGTERM; with a file ``stubborn`` in the state folder it has ten minutes to do so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from tidegate.base.children import ChildSpec
from tidegate.base.runtime import Runtime
from tidegate.deploy.first_key import ensure_first_key
from tidegate.deploy.probes import answers_ok
from tidegate.deploy.run import serve
from tidegate.deploy.values import LocalApp
from tidegate.stores.migrate import migrate
from tidegate.stores.postgres import ensure_database, postgres_place, postgres_spec
from tidegate.stores.valkey import valkey_spec, valkey_url


def make_app(state: Path, port: int) -> LocalApp:
    files = state / "files"
    files.mkdir(parents=True, exist_ok=True)
    (files / "health").touch()
    (files / "ready").touch()
    url = f"http://127.0.0.1:{port}"
    argv = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    gateway = ChildSpec(
        name="gateway",
        argv=argv,
        log=state / "log" / "gateway.log",
        cwd=files,
        probe=lambda: answers_ok(f"{url}/health"),
    )
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    pool = ChildSpec(
        name="pool",
        argv=(sys.executable, "-c", code),
        log=state / "log" / "pool.log",
        grace=600.0 if (state / "stubborn").exists() else 0.5,
    )
    runtime = Runtime(
        app=str(state.parent),
        state=str(state),
        pid=os.getpid(),
        release="sha256:" + 64 * "0",
        database_url=postgres_place(state).url(),
        valkey_url=valkey_url(state),
        gateway_url=url,
        operator_url=url,
        operator_token="token",
    )
    return LocalApp(
        runtime=runtime,
        engines=(postgres_spec(state), valkey_spec(state)),
        pools=(pool,),
        parts=(gateway,),
        ready_url=f"{url}/ready",
    )


def main(state: Path, port: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    app = make_app(state, port)

    def prepare() -> None:
        ensure_database(postgres_place(state))
        migrate(app.runtime.database_url)
        ensure_first_key(app.runtime.database_url, app.runtime.run)

    def say(step: str, seconds: float) -> None:
        logging.info("step %s", step)

    def on_ready() -> None:
        (state / "is-ready").touch()

    asyncio.run(serve(app, prepare=prepare, say=say, on_ready=on_ready))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
