"""The commands: one module each, found by name, loaded when called.

Holds:    what a person types and reads.
Not here: anything that a program could call; the rooms below do the work.
Reads:    all books.   Writes: through the rooms below.
Words:    command, exit code, progress
"""

# Commands are found by name (main): no room imports one.
__all__: list[str] = []
