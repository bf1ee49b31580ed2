"""Video files on disk: manifests, fractions of a recording history, decoders (in decoders/, archives/) and their check.

May import settings, runs, footage.decoders, footage.known and footage.archives.
"""
