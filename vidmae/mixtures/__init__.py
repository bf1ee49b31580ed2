"""Which footage a pretraining run sees, and when: sources with weights, hours, epochs in seconds, orders of age.

May import settings, runs, footage and clips.
"""
