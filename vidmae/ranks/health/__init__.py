"""Whether nodes and ranks are fit: checks before the first step, who holds up the others, and who hangs.

May import settings, runs, runs.nodes and ranks.
"""
