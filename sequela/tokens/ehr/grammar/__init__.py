"""Which token may follow which, fitted on training patients."""
