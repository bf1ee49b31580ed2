"""The networks: patches, masks, encoder, autoencoder, classifier, and their weights in and out.

May import settings and runs; nothing here reads a video.
"""
