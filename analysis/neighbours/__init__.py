"""Features of clips: nearest neighbours, and pictures of them.

May import vidmae and curves.
"""
