"""Play sixteen upstream faults to gateways and to a bare client; one word for each cell.

Holds:    the judge, the client that is asked like a user's, one start per system, the scorecard.
Not here: the scenarios and the server that plays them (tidegate.testing), the peers' environments.
Reads:    tidegate.testing, the product's commands.   Writes: bench/results.
Words:    scenario, system, cell, try, observation, verdict, pass, partial, safe, fail
"""
