"""What people say of videos: labels, side tables, k-shot subsets, the clips of a few-shot cell, what is withdrawn.

May import settings, runs, footage and footage.known.
"""
