"""The state of a run outside of the processes: checkpoints on disk, and which of them stay.

May import settings, runs and ranks.
"""
