"""Results laid out: cells over seeds, rows, columns; tables as text, CSV, Markdown and LaTeX, and figures as PNG and SVG.

May import vidmae and results.
"""
