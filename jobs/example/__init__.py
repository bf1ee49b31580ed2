"""What `make demo` and `make look` need beside jobs/demo.py, and the tables of an interpolation.

May import all rooms of jobs.
"""
