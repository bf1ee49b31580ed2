"""What `make demo` and `make look` need beside jobs/demo.py, and the tables of an interpolation.

May import jobs, vidmae and place.
"""
