"""Keep TensorZero's HTTP gateway alive until SIGTERM; print its address as first line.

Run by the environment's own Python: ``env/tensorzero/bin/python tensorzero_gateway.py CONFIG``.
"""

import signal
import sys
import threading

import tensorzero.tensorzero as native

gateway = native._start_http_gateway(
    config_file=sys.argv[1],
    clickhouse_url=None,
    postgres_url=None,
    valkey_url=None,
    async_setup=False,
)
print(f"listening {gateway.base_url}", flush=True)
stop = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stop.set())
stop.wait()
gateway.close()
