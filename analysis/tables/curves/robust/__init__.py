"""Accuracy under conditions: what robustness cells found, robustness in numbers with intervals, tables and figures.

May import vidmae, results, tables and tables.curves.
"""
