"""Carry out a sweep: decide what is missing, submit it as arrays, show it and wait for it.

May import jobs, vidmae and grid.
"""
