"""The processes of a job: who am I, the DeepSpeed engine, checkpoints, signals, and what ends a rank that waits in vain.

May import settings, runs and footage.
"""
