"""Violation of expectation: is a model more surprised by videos that cannot be than by videos that can?

May import settings, settings.programs, runs, footage, clips, model, ranks, insight and insight.interpolation.
"""
