"""What can happen to the pictures that a model is tested on: pure functions from frames to frames, and their names.

May import settings and footage.
"""
