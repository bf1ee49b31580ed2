"""What a run is told: the schemas of all programs, YAML layers with the origin of every value, sizes and schedules.

May import nothing of the other rooms. No torch: the launchers read it.
"""
