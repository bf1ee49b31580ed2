"""What a run knows of the nodes that it ran on: which it stays off, and why.

May import settings and runs.
"""
