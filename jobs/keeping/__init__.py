"""What a folder of runs can do without, and what of it goes into an archive.

May import vidmae, place.scheduler, place, standing and submit.
"""
