"""The processes of a job: who am I, the DeepSpeed engine, signals, and what ends a rank that waits in vain.

May import settings, runs, runs.nodes and footage.
"""
