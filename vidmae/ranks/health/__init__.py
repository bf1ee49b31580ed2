"""Whether the nodes of a job are fit: what they measure of themselves, and who of them is named.

May import settings, runs, runs.nodes and ranks.
"""
