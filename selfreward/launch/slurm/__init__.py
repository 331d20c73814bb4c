"""Runs as Slurm batch jobs: the script, the queue, and the jobs of a run."""
