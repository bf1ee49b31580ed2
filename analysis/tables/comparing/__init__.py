"""Runs and logs beside each other: settings that differ, losses over epochs, results.

May import vidmae, results, tables and page.
"""
