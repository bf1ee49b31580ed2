"""Whether the ranks of a run are well while it trains: who holds up the others, and who hangs.

May import settings, runs, runs.nodes and ranks.
"""
