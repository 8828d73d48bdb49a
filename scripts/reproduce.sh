# shellcheck shell=bash
# What the scripts reproduce_*.sh share: run the sweeps of a paper into one folder, then write the report and say which of its
# claims hold.
#
#   scripts/reproduce_PAPER.sh [mini|paper] [RESULTS] [OPTIONS OF peftbench run]
#
# mini: MiniLM, minutes to hours on 2 cores; paper: base-size models, for a GPU. RESULTS is results/runs/PAPER_FORM unless
# given. Data come from the hub, or from the folders named by PEFTBENCH_DATA. Stopped, it goes on where it was. Runs that
# diverge are a result: the report counts them, and the exit code is 1.
#
# The grids are those of the YAML files: fixed learning rates, one to three seeds (paper: five). Committed are other runs
# of doering2024 (chosen rates, five seeds) and of generalization2024 (three seeds): their FINDINGS.md have the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

reproduce() { # PAPER SWEEP... -- ARGUMENTS
  local paper=$1 sweeps=()
  shift
  while [ "$1" != -- ]; do sweeps+=("$1") && shift; done
  shift
  local form=${1:-mini} folder=${2:-} failed=0 code sweep workers
  case $form in
    mini | paper) ;;
    *)
      echo "usage: $0 [mini|paper] [RESULTS] [OPTIONS OF peftbench run], got '$form'" >&2
      exit 2
      ;;
  esac
  folder=${folder:-results/runs/${paper}_$form}
  for sweep in "${sweeps[@]}"; do
    # a budget of seconds needs the machine to itself; for several GPUs add --workers N
    case $sweep in *_time) workers=(--workers 1) ;; *) workers=() ;; esac
    code=0
    uv run peftbench run "sweep=${sweep}_$form" --results "$folder" "${workers[@]}" "${@:3}" || code=$?
    [ "$code" -le 1 ] || exit "$code" # bad input, or stopped
    [ "$code" = 0 ] || failed=1       # runs without a record
  done
  uv run peftbench report --results "$folder"
  uv run peftbench report claims "paper=$paper" --results "$folder"
  return "$failed"
}
