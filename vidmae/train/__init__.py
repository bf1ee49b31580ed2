"""The training loops: pretraining, and the cells of a few-shot sweep.

May import settings, settings.programs, runs, runs.nodes, footage, footage.archives, labels, clips, model, ranks,
ranks.saving, ranks.health, evaluate, evaluate.corruptions, evaluate.temporal, evaluate.dense, mixtures and insight.
"""
