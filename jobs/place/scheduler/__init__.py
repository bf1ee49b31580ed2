"""Slurm's commands: how they are called, and their answers as plain values.

May import nothing of the other rooms.
"""
