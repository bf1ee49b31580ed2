"""A run as one HTML page that works offline.

May import vidmae and results.
"""
