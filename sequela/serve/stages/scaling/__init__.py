"""The scaling study behind `sequela scale`: its runs, its laws, and how well its models answer tasks."""
