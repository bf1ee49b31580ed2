"""What the programs that train nothing are told: evaluation, features, attention, interpolation, preparing.

May import settings. No torch: the launchers read it.
"""
