"""What `make demo` and `make look` need beside jobs/demo.py.

May import jobs, vidmae and place.
"""
