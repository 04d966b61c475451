"""People and programs come in here: the command line, the stages, their folders and their pages."""
