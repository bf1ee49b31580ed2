"""Where an encoder looks, and whether at what moves.

May import settings, runs, footage, clips, model, ranks and insight.
"""
