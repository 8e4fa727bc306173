"""Pure statistics: numbers in, numbers with their stated error out.

Holds:    mergeable quantile sketches and the share of a quantile by part.
Not here: reading the ledger, drawing tables, deciding.
Reads:    nothing.   Writes: nothing.
Words:    quantile, sketch, relative error, share of the P95
"""

from tidegate.stats.share import OTHER, Shelves, shares
from tidegate.stats.sketch import Sketch

__all__ = ["OTHER", "Shelves", "Sketch", "shares"]
