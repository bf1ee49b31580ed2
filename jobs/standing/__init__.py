"""Where submitted runs stand: find one by what a user types, tell the truth about its state, follow it, show its outcome.

May import vidmae and place.scheduler.
"""
