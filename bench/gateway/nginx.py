"""nginx twice: the constant upstream that answers from memory, and the proxy that is the floor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.gateway.children import BenchError, Product, child, listens, wait_until
from tidegate.pools.loopback import free_port

PLAN = {
    "title": "First evening: easy hills",
    "minutes": 40,
    "steps": [
        "Walk briskly for five minutes and circle the ankles and hips as a warm-up.",
        "Jog twenty minutes at a pace at which you can still talk.",
        "Run four hills of thirty seconds with a relaxed walk back down.",
        "Walk ten minutes. Stop at once when something hurts and see a doctor if it stays.",
    ],
}
ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "bench-chat",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": json.dumps(PLAN)},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 120, "completion_tokens": 102, "total_tokens": 222},
    "system_fingerprint": "fp_bench",
}

_COMMON = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    client_max_body_size 8m;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port} backlog=512;
        location = /status {{ stub_status; }}
        location / {{
            default_type application/json;
            return 200 '{answer}';
        }}
    }}
"""
_PROXY = """
    upstream up{to} {{ server 127.0.0.1:{to}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=512;
        location / {{
            proxy_pass http://up{to};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
        }}
    }}
"""


def program() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise BenchError("nginx is missing; run: make bench-peers")
    return found


def version() -> str:
    shown = subprocess.run([program(), "-v"], capture_output=True, text=True, check=True)
    return shown.stderr.strip().rpartition("/")[2]


@contextlib.contextmanager
def _nginx(product: Product, servers: str, port: int) -> Iterator[None]:
    user = "user root;" if os.geteuid() == 0 else ""
    config = product.folder / "nginx.conf"
    config.write_text(_COMMON.format(folder=product.folder, user=user, servers=servers))
    command = [program(), "-p", str(product.folder), "-c", str(config)]
    with child(product, command) as (process, log):
        wait_until(lambda: listens(port), product.name, seconds=5, process=process, log=log)
        yield


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[tuple[Product, int]]:
    """The constant upstream of chat completions: its processes and port."""
    product = Product("upstream", folder)
    port = free_port()
    answer = json.dumps(ANSWER)
    if "'" in answer or "$" in answer:
        raise ValueError("the canned answer must not hold a quote or a dollar sign")
    servers = _UPSTREAM.format(port=port, answer=answer.replace("\\", "\\\\"))
    with _nginx(product, servers, port):
        yield product, port


@contextlib.contextmanager
def stream_upstream(folder: Path) -> Iterator[tuple[Product, int]]:
    """The stamped streaming upstream: its processes and port."""
    product = Product("upstream-stream", folder)
    port = free_port()
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "bench.gateway.upstream_stream", "--port", str(port)]
    with child(product, command, folder=root) as (process, log):
        wait_until(lambda: listens(port), product.name, seconds=10, process=process, log=log)
        yield product, port


@contextlib.contextmanager
def proxy(folder: Path, chat: int, stream: int) -> Iterator[tuple[Product, int, int]]:
    """nginx in front of both upstreams: its processes, the port of each."""
    product = Product("nginx", folder)
    ports = free_port(), free_port()
    servers = _PROXY.format(to=chat, port=ports[0], buffering="on") + _PROXY.format(
        to=stream, port=ports[1], buffering="off"
    )
    with _nginx(product, servers, ports[1]):
        yield product, *ports


def requests_answered(port: int) -> int:
    """How many requests the constant upstream has answered so far (its status calls left out)."""
    text = httpx.get(f"http://127.0.0.1:{port}/status", timeout=5).text
    found = re.search(r"^\s*\d+ \d+ (\d+)\s*$", text, re.MULTILINE)
    if not found:
        raise BenchError(f"nginx's status page is not as expected: {text!r}")
    return int(found.group(1))
