#!/usr/bin/env bash
# He et al. 2022, arXiv 2210.04284: adapters pruned before training.
# The YAML files' fixed learning rates and seeds; no results of these runs are committed.
# usage: reproduce_sparse_adapter2022.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce sparse_adapter2022 sparse_adapter2022 -- "$@"
