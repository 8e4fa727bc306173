"""A process that serves one GGUF model with llama.cpp: ``python -m tidegate.pools.llama_server``.

The engine runs in threads of C++ and cannot be stopped, so the process is the unit: SIGTERM ends
it at once, requests included. It listens on loopback only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.base import PoolError, TidegateError
from tidegate.pools.child_key import read_child_key

_PROMPT_CACHE_MIB = 128
"""Host memory for prompts of earlier requests; the engine's own default is 8 GiB."""
_SOCKET_TIMEOUT = 600
"""Seconds; the engine's own default is an hour."""
_WAITING = 256
"""Requests that may wait for a slot. The engine keeps a thread for each; with its own default of
4 the fifth would block everybody, the health probe included, and a busy pool would look dead."""
_ERRORS_ONLY = 1
"""Verbosity: higher levels write parts of prompts to the log."""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    # The default action needs no Python to run, so it works while C++ holds the interpreter.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        server = start_engine(options, read_child_key(os.environ, options.key_file))
    except TidegateError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit
    print(f"llama.cpp serves {options.name} on {server.listening_address}", flush=True)
    while True:
        signal.pause()


def start_engine(options: argparse.Namespace, key: str) -> Any:
    """A running ``xllamacpp.Server``; PoolError ``engine_not_installed`` or ``engine_failed``."""
    try:
        import xllamacpp
    except ImportError as error:
        raise PoolError(
            "engine_not_installed",
            f"xllamacpp cannot be imported: {error}",
            cure="pip install xllamacpp (Linux on x86_64), or use a model behind an endpoint",
        ) from None
    if not options.weights.is_file():
        raise PoolError(
            "pool_file_missing",
            f"there is no file {options.weights}",
            cure="fetch it: tidegate models fetch",
        )
    params = xllamacpp.CommonParams()
    params.model.path = str(options.weights)
    params.model_alias = {options.name}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.api_keys = [key]
    params.n_ctx = options.context * options.slots  # the engine splits it over the slots
    params.n_parallel = options.slots
    params.n_batch, params.n_ubatch = 512, 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_threads_http = options.slots + _WAITING
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.timeout_read = params.timeout_write = _SOCKET_TIMEOUT
    params.verbosity = _ERRORS_ONLY
    params.endpoint_metrics = True
    params.endpoint_slots = params.ui = params.fit_params = params.ctx_shift = False
    params.offline = True
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise PoolError(
            "engine_failed",
            f"llama.cpp cannot serve {options.weights} on 127.0.0.1:{options.port}: {error}",
            cure="the lines above say why: the port is taken, or the file is no GGUF model",
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidegate.pools.llama_server", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--name", required=True, help="name of the model in answers")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=4096, help="tokens of each slot")
    parser.add_argument("--slots", type=int, default=2, help="requests decoded at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--key-file", type=Path, help="file of mode 0600 with the bearer key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
