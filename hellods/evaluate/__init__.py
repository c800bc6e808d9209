"""Is an archive any good? The same student, under the archive's labels and under everything else."""
