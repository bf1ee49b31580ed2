"""What is in the footage of data sets: moments of recordings, repeated views, tables and figures of both.

May import vidmae and tables.
"""
