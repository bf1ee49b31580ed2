"""Features of clips: nearest neighbours, and pictures of them.

May import all rooms of analysis.
"""
