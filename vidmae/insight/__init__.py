"""What a model sees: embeddings and pictures here, attention, interpolation and surprise in the rooms below.

May import settings, settings.programs, runs, footage, clips, model, ranks and evaluate.
"""
