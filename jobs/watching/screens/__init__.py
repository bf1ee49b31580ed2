"""The screens of jobs/watch.py, which textual draws; only a command that shows them loads it.

May import vidmae, place.scheduler, standing and watching.
"""
