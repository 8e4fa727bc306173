"""Sources of artifacts, by their key in a pin: one file each."""

from tidegate.registry.ports import Source
from tidegate.registry.sources import file, hf, https, wheel

SOURCES: dict[str, Source] = {
    "wheel": wheel.obtain,
    "https": https.obtain,
    "file": file.obtain,
    "hf": hf.obtain,
}

__all__ = ["SOURCES"]
