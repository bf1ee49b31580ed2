"""Results as HTML pages that work offline: a run, and clips beside those most alike.

May import vidmae and results.
"""
