"""Where an encoder looks, and whether at what moves.

May import settings, settings.programs, runs, footage, clips, model, ranks and insight.
"""
