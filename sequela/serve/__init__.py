"""Floor 6: people and programs come in here. Commands, command line, progress display, report."""
