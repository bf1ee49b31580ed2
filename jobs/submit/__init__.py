"""From a request to a batch script and a job, once, and what becomes of the job whose ranks have left.

May import vidmae, place.scheduler, place and standing.
"""
