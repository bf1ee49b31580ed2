"""Weights by name and the library: what is published and where, files of the hub, opening a model, reading a clip for it.

May import settings, runs, footage, clips, model and model.formats.
"""
