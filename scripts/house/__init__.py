"""Rules of the house that no linter knows: names, faces of rooms, types at the heart, words.

Each module has ``problems(source) -> list[str]``: what is wrong and how to mend it, in words.
"""
