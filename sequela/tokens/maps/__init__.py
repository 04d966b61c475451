"""Code maps: translate the codes of one vocabulary into those of another."""
