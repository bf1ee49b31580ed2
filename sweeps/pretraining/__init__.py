"""Studies of pretraining runs: which runs a study has, what is equal between them, their jobs, and the cells after them.

May import jobs, vidmae, grid and run.
"""
