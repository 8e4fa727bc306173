"""The generated pages, one module each: ``page() -> str``, the same text for the same source."""
