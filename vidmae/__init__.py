"""The science: models, clips, training and what is learned about a model. Knows nothing of Slurm or submitit."""

from vidmae.numerics import fix_numerics

fix_numerics()
