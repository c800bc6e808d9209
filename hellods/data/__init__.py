"""What users hold: the data set, its lazy labels, the loader."""
