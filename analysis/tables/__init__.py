"""Results laid out: cells over seeds, rows, columns, and tables as text, CSV, Markdown and LaTeX.

May import vidmae and results.
"""
