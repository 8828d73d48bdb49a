#!/usr/bin/env bash
# Robust partial tuning (see configs/sweep/robust2024_mini.yaml): blocks, penalties, noise.
# usage: reproduce_robust2024.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce robust2024 robust2024 -- "$@"
