"""Accuracy at growing amounts of data: points, fits with intervals, figures.

May import vidmae, results and tables.
"""
