"""What the benchmarks share: a process that is timed and weighed, and synthetic MEDS datasets of any size."""
