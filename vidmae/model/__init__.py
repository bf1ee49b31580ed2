"""The networks: patches, masks, encoder, autoencoder, classifier, and their weights in and out.

May import settings and runs. Nothing here reads a video.
"""
