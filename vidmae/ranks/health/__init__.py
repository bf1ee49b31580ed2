"""Whether nodes and ranks are fit: checks before the first step, who holds up the others or hangs, restarts in place.

May import settings, runs, runs.nodes, footage and ranks.
"""
