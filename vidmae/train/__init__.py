"""The training loops: pretraining, and the cells of a few-shot sweep.

May import settings, settings.programs, runs, footage, footage.archives, labels, clips, model, ranks,
ranks.health, ranks.saving, evaluate, evaluate.corruptions, evaluate.temporal, evaluate.dense, mixtures and insight.
"""
