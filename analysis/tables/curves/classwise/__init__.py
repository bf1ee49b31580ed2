"""What the accuracy of classes depends on: a choice of classes beside all others, and measured factors.

May import vidmae, results and tables.
"""
