"""The networks: patches, masks, encoder, autoencoder, classifier, and their weights in and out.

May import settings, runs and model.formats. Nothing here reads a video.
"""
