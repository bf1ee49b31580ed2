"""What a model can do: its predictions on labelled clips, its features, and probes on them.

May import settings, settings.programs, runs, footage, labels, clips, model, ranks and evaluate.corruptions.
"""
