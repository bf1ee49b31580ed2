"""Fill in the hidden part of clips, score it against baselines, and track objects through it.

May import settings, settings.programs, runs, footage, clips, model, model.formats, ranks and insight.
"""
