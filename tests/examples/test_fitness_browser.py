"""The page in a real browser: fills in both forms, sends them, reads what is on the screen."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from examples.fitness.app import make_app
from examples.fitness.settings import Settings
from tests.examples.test_fitness_app import NOBODY, SAYS, Gateway, say, served

# The load event, after which the browser writes the page out, waits for the image.
DRIVER = """
<script>
  const fill = (form, fields) => {
    for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
    form.querySelector("button").click();
  };
  fill(document.getElementById("plan"), {goal: "lose weight", level: "beginner", minutes: 20});
  fill(document.getElementById("ask"), {question: "kcal of <b>running</b> 30 minutes?"});
  const seen = setInterval(() => {
    if (document.querySelectorAll("[data-state]").length < 2) return;
    clearInterval(seen);
    fetch("/seen");
  }, 50);
</script>
<img src="/hold" alt="">
"""


def browser() -> str:
    """Path of chromium; installed as part of the set-up where this process may do so."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "chromium"]):
            subprocess.run(command, capture_output=True, check=False, timeout=300)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no browser: apt-get install chromium")
    return found


def add_driver(app: Starlette) -> None:
    """``/driven`` is the page with both forms filled in and sent, loaded when both are answered."""
    seen = asyncio.Event()

    async def driven(request: Request) -> Response:
        page = next(route for route in app.routes if getattr(route, "path", "") == "/")
        html = bytes((await page.endpoint(request)).body).decode()
        return HTMLResponse(html.replace("</body>", DRIVER + "</body>"))

    async def hold(request: Request) -> Response:
        await asyncio.wait_for(seen.wait(), 30)
        return Response(status_code=404)

    async def see(request: Request) -> Response:
        seen.set()
        return Response()

    handlers = {"/driven": driven, "/hold": hold, "/seen": see}
    app.router.routes[:0] = [Route(path, handler) for path, handler in handlers.items()]


@pytest.fixture
def url(empty_database_url: str) -> Iterator[str]:
    with Gateway(answer=say) as gateway:
        app = make_app(Settings(gateway.url, empty_database_url, "key", NOBODY))
        add_driver(app)
        with served(app) as address:
            yield address + "/driven"


@pytest.mark.timeout(400)
def test_both_forms_show_their_answers(url: str, tmp_path: Path) -> None:
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        [*command, "--dump-dom", url], capture_output=True, text=True, timeout=90, check=False
    )
    page = done.stdout
    assert page.count('data-state="done"') == 2, page[-3000:] + done.stderr[-1000:]
    assert page.count(f'<p class="said">{SAYS}</p>') == 2
    assert page.count("<li><b>") == 3
    assert "about 360 kcal" in page
    assert not re.search(r'class="error"', page)
