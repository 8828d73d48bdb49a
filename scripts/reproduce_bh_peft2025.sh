#!/usr/bin/env bash
# Chai et al. 2025, arXiv 2508.02711: uncertainty of BH-PEFT, and data in rounds.
# The YAML files' fixed learning rates and seeds; no results of these runs are committed.
# usage: reproduce_bh_peft2025.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce bh_peft2025 bh_peft2025 -- "$@"
