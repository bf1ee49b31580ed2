"""Video files on disk: manifests, fractions of a recording history, decoders (in decoders/) and their check.

May import settings, runs, footage.decoders and footage.known.
"""
