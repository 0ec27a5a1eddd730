"""Rehearsals: every stage at full width with random weights, and what the full run will take."""
