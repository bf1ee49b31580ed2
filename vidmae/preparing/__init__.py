"""Footage that is prepared once: each recording decoded in order, at the rate that training samples, and written small.

May import settings, settings.programs, runs, footage, footage.decoders, footage.known, footage.archives and ranks.
"""
