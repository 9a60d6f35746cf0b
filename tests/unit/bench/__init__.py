"""How the benchmarks show what they measured."""
