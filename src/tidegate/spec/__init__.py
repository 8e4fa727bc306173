"""What a person wants of the app: ``tidegate.yaml``, typed, strict, every mistake named.

Holds:    the authored types, loading with positions, includes and variables, the rules of check.
Not here: hashes and digests (release, registry), anything that runs or is served.
Reads:    the app folder.   Writes: nothing.
Words:    spec, key, mistake, notice, include, variable
"""

from tidegate.spec.load import Loaded, load, locate
from tidegate.spec.mistakes import Mistake, Notice
from tidegate.spec.types import Spec

__all__ = ["Loaded", "Mistake", "Notice", "Spec", "load", "locate"]
