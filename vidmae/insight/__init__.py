"""What a model sees: embeddings and pictures here, attention and interpolation in the rooms below.

May import all rooms but train.
"""
