"""Pure statistics: numbers in, numbers with their stated error out.

Holds:    mergeable quantile sketches and the share of a quantile by part.
Not here: reading the ledger, drawing tables, deciding.
Reads:    nothing.   Writes: nothing.
Words:    quantile, sketch, relative error, share of the P95
"""
