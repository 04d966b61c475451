"""Floor 6: people and programs come in here. The commands, the command line, the progress display, the report."""
