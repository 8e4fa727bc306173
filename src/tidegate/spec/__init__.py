"""The app spec: ``tidegate.yaml`` as a person writes it, typed and strict, every mistake named.

Holds:    the authored types, loading with positions, includes and variables, the rules of check,
          how a spec becomes a release.
Not here: the resolved values, hashes and digests (release, registry), anything that runs.
Reads:    the app folder.   Writes: nothing.
Words:    spec, spec key, mistake, notice, include, variable, authored, experimental
"""

from tidegate.spec.build import build_release, resolve_models
from tidegate.spec.load import FILE as SPEC_FILE
from tidegate.spec.load import LoadedSpec, load, locate
from tidegate.spec.mistakes import Mistake, Notice, nearest
from tidegate.spec.nodes import plain_value
from tidegate.spec.schema import FILE as SCHEMA_FILE
from tidegate.spec.schema import schema_text
from tidegate.spec.types import Spec

__all__ = [
    "SCHEMA_FILE",
    "SPEC_FILE",
    "LoadedSpec",
    "Mistake",
    "Notice",
    "Spec",
    "build_release",
    "load",
    "locate",
    "nearest",
    "plain_value",
    "resolve_models",
    "schema_text",
    "types",
]
