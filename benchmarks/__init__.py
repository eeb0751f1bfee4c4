"""Benchmarks: this server beside what a user would pick instead. `README.md` says how to run them."""
