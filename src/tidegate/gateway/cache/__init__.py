"""The exact cache: identical calls are answered once, and asked once at a time."""

from tidegate.gateway.cache.key import cache_key
from tidegate.gateway.cache.run import ExactCache, Flight, Lookup

__all__ = ["ExactCache", "Flight", "Lookup", "cache_key"]
