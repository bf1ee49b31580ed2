"""Results as they lie on disk: records of runs, logs of the original code, published numbers.

May import vidmae.
"""
