"""What is known of recordings beside their pixels: facts of a laboratory, and which were withdrawn.

May import runs.
"""
