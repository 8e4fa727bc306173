"""``tidegate secrets``: a provider's keys, exchanged while the gateway serves."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click
import msgspec

from tidegate.base import UsageError, read_runtime
from tidegate.cli.flip import Flip, switch_options
from tidegate.cli.known import require_known
from tidegate.ledger import read_gauges
from tidegate.registry import load_release
from tidegate.secrets import (
    add_key,
    fingerprint,
    place_of,
    plain_name,
    read_keys,
    remove_key,
    resolve,
)
from tidegate.spec import locate
from tidegate.stores import connected
from tidegate.switches import SecretKey, SecretState, set_secret_key, snapshot

_APP = click.option("--app", default=".", metavar="APP", help="The app's folder.")
_CODES = "Exit codes: 0 in force in every worker, 1 not in all of them (they are named), 2 usage."


class ProviderKeyState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one provider key, and how it serves."""

    secret: str
    key: str
    """The first digits of its sha256."""
    state: SecretState
    share: float | None
    """Of a canary."""
    here: bool
    """Whether this machine has it."""


@click.group(
    epilog="\b\nA rotation, with nothing dropped:\n"
    "  tidegate secrets add large --share 5% < new.key\n"
    "  tidegate receipts --provider-key NEW    how it does\n"
    "  tidegate secrets promote large NEW\n"
    "  tidegate secrets drain large OLD    waits until nothing runs with it\n"
    "  tidegate secrets revoke large OLD\n" + _CODES
)
def command() -> None:
    """Exchange the keys of a provider while the gateway serves.

    A secret may hold several keys. A key is named by its fingerprint, the first digits of its
    sha256, which stands on receipts too. No command shows a key.
    """


@command.command(
    "list",
    epilog="\b\nExamples:\n  tidegate secrets list\n  tidegate secrets list large --json\n"
    "Exit codes: 0 shown, 1 nothing runs, 2 usage.",
)
@click.argument("name", required=False)
@_APP
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(name: str | None, app: str, as_json: bool) -> None:
    """Show the keys of the secrets that the running release names: fingerprint and state."""
    folder = locate(app).parent.resolve()
    runtime = read_runtime(folder)
    release = load_release(runtime.registry, runtime.release)
    named = sorted({plain_name(m.keys) for m in release.models.values() if m.keys is not None})
    wanted = named if name is None else [plain_name(name)]
    said = _said(folder)
    found = [one for secret in wanted for one in _key_states(secret, Path(runtime.state), said)]
    if as_json:
        click.echo(json.dumps({"keys": msgspec.to_builtins(found)}))
        return
    for one in found:
        share = f" for {one.share:.0%} of the requests" if one.share is not None else ""
        click.echo(f"{one.secret}  {one.key}  {one.state}{share}{'' if one.here else ', not here'}")
    if not found:
        click.echo("the models of this release need no keys")


@command.command(
    epilog="\b\nExamples:\n  tidegate secrets add large < new.key\n"
    "  tidegate secrets add large --share 5%   asks for the key\n" + _CODES
)
@click.argument("name")
@click.option("--share", default="10%", show_default=True, help="Of the requests, as a canary.")
@click.option("--active", is_flag=True, help="In full use at once, not as a canary.")
@click.option("--force", is_flag=True, help="Though no model that is served has this secret.")
@_APP
@switch_options
def add(name: str, share: str, active: bool, force: bool, app: str, flip: Flip) -> None:
    """Add a key, read from standard input or asked for, never from the command line.

    It is written to .tidegate/secrets/NAME and serves its share of the requests as a canary.
    """
    part = _share(share)
    if not force:
        require_known(app, "secret", plain_name(name))
    key = click.prompt("key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    _require_new(app, name, key.strip())
    mark = add_key(name, key.strip(), _state(app), os.environ)
    wanted = SecretKey(
        secret=plain_name(name),
        fingerprint=mark,
        state="active" if active else "canary",
        share=1.0 if active else part,
    )
    flip(app, lambda connection, author: set_secret_key(connection, wanted, author))


@command.command(
    epilog="\b\nExample:\n  tidegate secrets canary large 1a2b3c4d --share 30%\n" + _CODES
)
@click.argument("name")
@click.argument("key")
@click.option("--share", required=True, help="Of the requests.")
@_APP
@switch_options
def canary(name: str, key: str, share: str, app: str, flip: Flip) -> None:
    """Let a key serve a share of the requests."""
    part = _share(share)
    _require_another(app, name, key)
    _set(app, name, key, "canary", flip, share=part)


@command.command(epilog="\b\nExample:\n  tidegate secrets promote large 1a2b3c4d\n" + _CODES)
@click.argument("name")
@click.argument("key")
@_APP
@switch_options
def promote(name: str, key: str, app: str, flip: Flip) -> None:
    """Put a key into full use, in turn with the other active ones."""
    _set(app, name, key, "active", flip)


@command.command(
    epilog="\b\nExample:\n  tidegate secrets drain large 1a2b3c4d\n"
    "Exit codes: 0 drained, 1 not in every worker, or requests still run with it, 2 usage."
)
@click.argument("name")
@click.argument("key")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Seconds to wait for the last.",
)
@_APP
@switch_options
def drain(name: str, key: str, patience: float, app: str, flip: Flip) -> None:
    """Give a key no new requests, and wait until those that run with it have ended."""
    _require_another(app, name, key)
    _set(app, name, key, "draining", flip)
    if not _until_drained(app, key, patience, told=not flip.as_json):
        words = f"requests still run with {key} after {patience:g} s; run this again to wait on"
        click.secho(words, fg="red", err=True)
        sys.exit(1)


@command.command(epilog="\b\nExample:\n  tidegate secrets revoke large 1a2b3c4d\n" + _CODES)
@click.argument("name")
@click.argument("key")
@_APP
@switch_options
def revoke(name: str, key: str, app: str, flip: Flip) -> None:
    """Take a key out for good: no worker uses it again, and it leaves this machine's disk.

    What runs with it is finished; drain it first to know when. Revoke it at the provider after.
    """
    _require_another(app, name, key)
    _set(app, name, key, "revoked", flip)
    remove_key(name, key, _state(app), os.environ)


def _set(app: str, name: str, key: str, state: SecretState, flip: Flip, share: float = 1.0) -> None:
    plain = plain_name(name)
    keys = resolve(plain, _state(app), os.environ).reveal()
    if key not in map(fingerprint, keys):
        raise UsageError(
            "secret_key_unknown",
            f"secret {plain} has no key {key[:16]!r}",
            cure=f"see its keys: tidegate secrets list {plain}",
        )
    wanted = SecretKey(secret=plain, fingerprint=key, state=state, share=share)
    flip(app, lambda connection, author: set_secret_key(connection, wanted, author))


def _require_new(app: str, name: str, key: str) -> None:
    """A key that is given again by mistake would go from full use to a canary's share."""
    plain, mark = plain_name(name), fingerprint(key)
    _, keys = read_keys(plain, place_of(plain, _state(app)))
    if mark in map(fingerprint, keys):
        raise UsageError(
            "secret_key_known",
            f"secret {plain} has the key {mark} already",
            cure=f"see how it serves: tidegate secrets list {plain}; then canary or promote it",
        )


def _require_another(app: str, name: str, key: str) -> None:
    """The last active key stays: without one the model answers nobody."""
    standings = _key_states(plain_name(name), _state(app), _said(locate(app).parent.resolve()))
    if not any(one.state == "active" and one.here and one.key != key for one in standings):
        raise UsageError(
            "secret_last_key",
            f"without {key[:16]} secret {plain_name(name)} has no active key",
            cure="add its successor and promote it first; to stop a model: tidegate kill model",
        )


def _said(folder: Path) -> tuple[SecretKey, ...]:
    with connected(folder) as connection:
        return snapshot(connection).secrets


def _key_states(secret: str, state: Path, said: tuple[SecretKey, ...]) -> list[ProviderKeyState]:
    spoken = {one.fingerprint: one for one in said if one.secret == secret}
    here = [fingerprint(key) for key in resolve(secret, state, os.environ).reveal()]
    found = []
    for mark in dict.fromkeys([*here, *spoken]):
        one = spoken.get(mark)
        found.append(
            ProviderKeyState(
                secret=secret,
                key=mark,
                state="active" if one is None else one.state,
                share=one.share if one is not None and one.state == "canary" else None,
                here=mark in here,
            )
        )
    return found


def _until_drained(app: str, key: str, patience: float, told: bool) -> bool:
    """Whether nothing runs with the key, as every worker of this machine says it anew."""
    run = read_runtime(locate(app).parent.resolve()).run
    began, deadline = time.time(), time.monotonic() + patience
    said = -1
    while True:
        workers = read_gauges(run).values()
        if all(one.at > began for one in workers):
            left = int(sum(one.gauges.get(f"draining {key}", 0) for one in workers))
            if not left:
                if told:
                    click.echo(f"drained: nothing runs with {key}")
                return True
            if told and left != said:
                click.echo(f"  {left} still run with {key}", err=True)
                said = left
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _state(app: str) -> Path:
    return locate(app).parent.resolve() / ".tidegate"


def _share(text: str) -> float:
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageError(
            "share_invalid", f"{text!r} is no share", cure="write a percentage, such as 10%"
        )
    return share
