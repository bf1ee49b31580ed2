"""Labels of videos: where they come from, k-shot subsets, and the clips of a few-shot cell.

May import settings, runs and footage.
"""
