"""Fill in the hidden part of clips, score it against baselines, and track objects through it.

May import all rooms but train; of insight also what lies beside this folder.
"""
