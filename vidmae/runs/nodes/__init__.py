"""What a run knows of the nodes that it ran on: which it stays off, and why; what its time on them has used.

May import settings and runs.
"""
