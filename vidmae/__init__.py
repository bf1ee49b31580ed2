"""The science: models, clips, training and what is learned about a model. Knows nothing of Slurm or submitit."""

from vidmae.numerics import fix_numerics

__version__ = "0.1.0"  # the one place: pyproject.toml reads it here, and so a snapshot of the code has it, too

fix_numerics()
