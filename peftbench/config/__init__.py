"""From overrides to runs: Hydra composition, sweeps, validation."""
