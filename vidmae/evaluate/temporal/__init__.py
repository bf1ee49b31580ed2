"""Temporal probes: which moments of which recordings are shown in which order, and what a linear probe reads off features.

May import settings, settings.programs, runs, footage, footage.known, clips, model, ranks and evaluate.
"""
