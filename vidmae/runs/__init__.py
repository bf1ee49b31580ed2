"""The run folder as a contract: its records, metrics, results, what a run costs and how its batch is shared.

May import settings.
"""
