"""Measuring sticks: metrics, prompt checks and benchmark tables."""
