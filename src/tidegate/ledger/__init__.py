"""The truth: what happened to every request, and what it cost; append-only.

Holds:    receipts, the spool, the loader, content, roll-ups, journeys, and the questions over them.
Not here: judging what happened (evals to drift), drawing it (cli, console).
Reads:    the spool.   Writes: PostgreSQL.
Words:    receipt, spool, content, stage, journey, roll-up, retention
"""
