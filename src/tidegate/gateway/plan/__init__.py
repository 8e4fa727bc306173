"""Plans: routes of a release, compiled into what the stages read on every request."""

from tidegate.gateway.plan.budgets import HedgeBudget, RetryBudget
from tidegate.gateway.plan.checks import OUTPUT_INVALID, AnswerCheck, SchemaCheck, broken
from tidegate.gateway.plan.compile import compile_plans, load_redactor
from tidegate.gateway.plan.limits import CountedLimit, RouteLimits, bits_of, limits_of
from tidegate.gateway.plan.loaded import FlagEvaluator, LoadedRelease
from tidegate.gateway.plan.template import PromptTemplate
from tidegate.gateway.plan.terms import AskTerms
from tidegate.gateway.plan.values import Plan, Redact

__all__ = [
    "OUTPUT_INVALID",
    "AnswerCheck",
    "AskTerms",
    "CountedLimit",
    "FlagEvaluator",
    "HedgeBudget",
    "LoadedRelease",
    "Plan",
    "PromptTemplate",
    "Redact",
    "RetryBudget",
    "RouteLimits",
    "SchemaCheck",
    "bits_of",
    "broken",
    "compile_plans",
    "limits_of",
    "load_redactor",
]
