"""A run as one HTML page that works offline.

May import all rooms of analysis.
"""
