#!/usr/bin/env bash
# Yang et al. 2024, arXiv 2403.09162: shifted sets over training sizes, and demonstrations in training (FTICL), and generation (uv sync --group smollm2).
# Demonstrations at test time: peftbench run sweep=in_context_smollm2 seeds=6 data.root=GLUE --results RESULTS
# usage: reproduce_generalization2024.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce generalization2024 generalization2024 generalization2024_fticl generalization2024_generation -- "$@"
