"""A read-only connection with a time limit, whose errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tidegate.base import StoreError, UsageError
from tidegate.ledger.partitions import Connection


@contextmanager
def reading(url: str, *, timeout: float = 20.0) -> Iterator[Connection]:
    """A connection that only reads; ``timeout`` bounds each question, in seconds.

    StoreError: database_unreachable, question_too_large, ledger_unreadable.
    UsageError: value_invalid.
    """
    try:
        with psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=5,
            application_name="tidegate-questions",
            options=f"-c statement_timeout={int(timeout * 1000)} "
            "-c default_transaction_read_only=on",
        ) as connection:
            yield connection
    except psycopg.errors.QueryCanceled:
        raise StoreError(
            "question_too_large",
            f"the ledger did not answer within {timeout:g} s",
            cure="ask about less: a shorter --since, or another filter",
        ) from None
    except psycopg.OperationalError as error:
        raise StoreError(
            "database_unreachable",
            f"PostgreSQL cannot be reached: {str(error).strip().splitlines()[0]}",
            cure="check that tidegate up runs, or TIDEGATE_DATABASE_URL",
        ) from None
    except (psycopg.DataError, UnicodeEncodeError) as error:
        raise UsageError(
            "value_invalid",
            f"a value cannot be looked up: {str(error).splitlines()[0]}",
            cure="leave out control characters and numbers out of range",
        ) from None
    except psycopg.ProgrammingError as error:
        raise StoreError(
            "ledger_unreadable",
            f"the ledger's tables are not there: {str(error).splitlines()[0]}",
            cure="start tidegate up once, which makes them",
        ) from None
