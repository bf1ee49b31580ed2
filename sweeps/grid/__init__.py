"""What a sweep consists of: cells, what they start from, their data, their cost, and how far they are.

May import jobs and vidmae.
"""
