"""How fast things are on this machine, and how near to what it can do at most: for ``llamo bench`` and benchmarks/."""
