"""A stage is one function in one file; the command line, the Python API and the help follow from it."""
