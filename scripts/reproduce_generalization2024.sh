#!/usr/bin/env bash
# Yang et al. 2024, arXiv 2403.09162: shifted sets over training sizes, and demonstrations in training (FTICL), and generation (uv sync --group smollm2).
# Demonstrations at test time: peftbench run sweep=in_context_smollm2 seeds=6 data.root=GLUE --results RESULTS
# The YAML files' fixed learning rates and seeds. The committed results/generalization2024 are of demonstrations at test time, which this
# script does not run: results/generalization2024/FINDINGS.md has their command.
# usage: reproduce_generalization2024.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run], see reproduce.sh
. "$(dirname "$0")/reproduce.sh"
reproduce generalization2024 generalization2024 generalization2024_fticl generalization2024_generation -- "$@"
