"""Ask a model from inside the gateway, with no client attached: what a judge, a router, a shadow or
the embedding of a semantic cache needs.

Retries, hedges, keys, breakers and fallbacks are those of the route. The receipt names its purpose,
so it stays out of the sums, limits and caches of users.
"""

from __future__ import annotations

import asyncio
import time
from time import perf_counter_ns

from tidegate.base import RequestError, new_id
from tidegate.gateway.call import ask_whole
from tidegate.gateway.finish import finish, left, refused
from tidegate.gateway.guard import require
from tidegate.gateway.journal import Journal
from tidegate.gateway.plan import LoadedRelease, Plan
from tidegate.gateway.ports import Ask
from tidegate.gateway.values import NO_CONTEXT, Answer, Ending, Steering, TraceContext
from tidegate.gateway.worker_state import WorkerState
from tidegate.ledger import Purpose


async def ask(
    state: WorkerState,
    release: LoadedRelease,
    plan: Plan,
    asked: Ask,
    *,
    seconds: float,
    purpose: Purpose,
    context: TraceContext = NO_CONTEXT,
) -> Answer:
    """A whole answer of the models of ``plan``, a route of ``release``, within ``seconds``, that
    holds to the route's checks. Raises RequestError. Its receipt belongs to the trace and journey
    of ``context``."""
    deadline = asyncio.get_running_loop().time() + seconds
    journal = Journal(new_id(), time.time(), perf_counter_ns(), asked.kind, purpose)
    journal.context = context
    journal.steering = Steering(release, plan)
    release.running += 1
    ending = left(begun=False)
    try:
        journal.enter("call")
        answered = await ask_whole(journal, asked, plan.targets, plan.terms, deadline)
        answer = answered.answer
        journal.model = answer.model
        if plan.checks and not answered.checked:
            journal.enter("guard")
            try:
                require(plan.checks, answer.model, answer.facts)
            except RequestError as error:
                answered.attempt.reject(error.code, answer.usage)
                raise
        answered.attempt.answer(answer.usage)
        if plan.route.store_content:
            journal.content = answer.body
        journal.served_by = "model" if answer.model == plan.route.models[0] else "fallback"
        ending = Ending(status=200, outcome="served", finish=answer.finish)
        return answer
    except RequestError as error:
        ending = refused(journal, asked.dialect, error, begun=False)
        raise
    finally:
        finish(state, journal, ending, None)
