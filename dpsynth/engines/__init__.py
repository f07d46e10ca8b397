"""Who counts: engines turn codes into exact counts for the vault, and never add noise."""

from dpsynth.engines.arrays import marginal_counts as marginal_counts
