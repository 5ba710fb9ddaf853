"""Benchmarks. Each is a program: ``python -m bench.<name> --help``; figures are ratios within one run."""
