"""Synthetic patients with known truth: the exact risk (`markov`, `renewal`), the exact entropy (`zipf`), or a hidden
course (`latent`) and all that records tell of it (`belief`).
"""
