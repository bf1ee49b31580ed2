"""How Slurm is asked, with stand-ins for its commands."""
