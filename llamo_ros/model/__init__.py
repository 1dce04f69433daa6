"""LLaMo: one file per box of the paper's figure, and `llamo.py` that joins them."""
