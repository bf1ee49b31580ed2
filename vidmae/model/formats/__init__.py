"""Layouts of weights files: what a file is, from names and shapes, and its tensors under this suite's names.

May import settings.
"""
