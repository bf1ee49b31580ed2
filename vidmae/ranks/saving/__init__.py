"""The state of a run outside of the processes: checkpoints on disk, which of them stay, and copies in the memory of nodes.

May import settings, runs, runs.nodes and ranks.
"""
