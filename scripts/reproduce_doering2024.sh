#!/usr/bin/env bash
# Doering et al. 2024, arXiv 2401.04051: full fine-tuning, BitFit and adapters over data sizes and time budgets.
# The YAML files' fixed learning rates and seeds. The committed results/tuned/doering2024 and doering2024_time are other runs, with
# chosen learning rates and five seeds: results/tuned/doering2024/FINDINGS.md has their commands.
# usage: reproduce_doering2024.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce doering2024 doering2024 doering2024_time -- "$@"
