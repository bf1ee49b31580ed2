"""What jobs/watch.py shows and does, but for the screens: reading run folders again and again, rows, cancelling, retrying.

May import vidmae, place, place.scheduler, standing and jobs.
"""
