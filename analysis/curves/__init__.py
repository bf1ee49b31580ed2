"""Accuracy at growing amounts of data: points, fits with intervals, figures.

May import analysis.results and analysis.tables.
"""
