"""What the programs that train nothing are told: evaluation, features, attention, interpolation, surprise, preparing.

May import settings. No torch: the launchers read it.
"""
