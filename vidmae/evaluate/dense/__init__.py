"""Dense probes: do the features of patches carry places and identities over time? Layouts of sets, features, scores.

May import settings, settings.programs, runs, footage, clips, model and evaluate.
"""
