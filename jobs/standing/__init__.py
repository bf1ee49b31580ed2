"""Where submitted runs stand: find one by what a user types, tell the truth about its state, follow it.

May import vidmae and scheduler.
"""
