#!/usr/bin/env bash
# Mao et al. 2022, arXiv 2110.07577: six methods at 100, 500 and 1,000 examples.
# The YAML files' fixed learning rates and seeds; no results of these runs are committed.
# usage: reproduce_unipelt2022.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce unipelt2022 unipelt2022 -- "$@"
