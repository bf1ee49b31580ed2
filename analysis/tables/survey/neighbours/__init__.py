"""Features of clips: nearest neighbours, how well classes lie together, and pictures of both.

May import vidmae and tables.
"""
