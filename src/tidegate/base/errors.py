"""The error tree: every error has a stable code, a message, and a cure that says how to mend it.

    TidegateError
    ├── UsageError         the command was called wrongly               exit 2
    ├── SpecError          tidegate.yaml does not say what it must      exit 1
    ├── ReleaseError       a release cannot be built, found or read     exit 1
    ├── ArtifactError      a model or data artifact cannot be had       exit 1
    ├── SecretError        a provider's key cannot be had               exit 1
    ├── DiskError          a disk is full, or a folder not writable     exit 1
    ├── StoreError         PostgreSQL or Valkey is not usable           exit 1
    ├── PoolError          a local model server does not run            exit 1
    ├── RuntimeStateError  the folder is in use, or nothing runs        exit 1
    └── RequestError       one request is refused; has an HTTP status

The tree above is held against the classes by ``tests/base/test_errors.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class TidegateError(Exception):
    """Something went wrong that a person can mend.

    ``code`` is stable, snake_case, and listed in ``docs/errors.md``; ``cure`` is one imperative
    sentence. ``exit`` is the exit code of a command that ends with this error.
    """

    exit: ClassVar[int] = 1

    def __init__(self, code: str, message: str, *, cure: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]\n  cure: {self.cure}"

    def to_json(self) -> dict[str, object]:
        return {"code": self.code, "message": self.message, "cure": self.cure}


class UsageError(TidegateError):
    """The command was called wrongly."""

    exit = 2


class SpecError(TidegateError):
    """``tidegate.yaml`` does not say what it must; ``mistakes`` are all that were found (values of
    ``tidegate.spec.Mistake``)."""

    def __init__(
        self, code: str, message: str, *, cure: str, mistakes: Sequence[object] = ()
    ) -> None:
        super().__init__(code, message, cure=cure)
        self.mistakes = tuple(mistakes)

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "mistakes": msgspec.to_builtins(self.mistakes)}


class ReleaseError(TidegateError):
    """A release cannot be built, found or read."""


class ArtifactError(TidegateError):
    """A model or data artifact cannot be had, or is not what was pinned."""


class SecretError(TidegateError):
    """A provider's key cannot be had; the message never holds a key."""


class DiskError(TidegateError):
    """A disk is full, or a folder cannot be written."""


class StoreError(TidegateError):
    """PostgreSQL or Valkey is not usable."""


class PoolError(TidegateError):
    """A local model server does not run."""


class RuntimeStateError(TidegateError):
    """The folder is in use by another process, or nothing runs in it."""


class RequestError(TidegateError):
    """One request is refused or failed; ``status`` is the HTTP status it is answered with.

    ``retry_after`` is the value of that header: whole seconds, or a provider's own text."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        cure: str,
        param: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(code, message, cure=cure)
        self.status = status
        self.param = param
        self.retry_after = retry_after
