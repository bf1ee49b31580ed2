"""Where a run goes and what it is given: cluster profiles, data catalogue, resources, shared flags, the code that runs,
and the command `vidmae`.

May import vidmae and place.scheduler.
"""
