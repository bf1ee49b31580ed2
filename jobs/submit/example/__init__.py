"""What `make demo`, `make look`, `make objects` and `make replicate` need beside jobs/demo.py.

May import jobs, vidmae and place.
"""
