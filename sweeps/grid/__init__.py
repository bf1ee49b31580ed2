"""What a sweep consists of: cells and pretraining runs, their data, their cost, and how far they are.

May import jobs and vidmae.
"""
