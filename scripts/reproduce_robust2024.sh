#!/usr/bin/env bash
# Robust partial tuning (see configs/sweep/robust2024_mini.yaml): blocks, penalties, noise.
# The YAML files' fixed learning rates and seeds; no results of these runs are committed.
# usage: reproduce_robust2024.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce robust2024 robust2024 -- "$@"
