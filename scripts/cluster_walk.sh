#!/usr/bin/env bash
# The whole way on a real Slurm of one node, as a text: submit 40 runs, kill the node midway, preempt, resume, collect, table.
# usage: cluster_walk.sh [OUTPUT]; as root on a Debian machine. OUTPUT is results/cluster/walk.txt unless given.
set -euo pipefail
cd "$(dirname "$0")/.."
output=$(realpath -m "${1:-results/cluster/walk.txt}")
python=${PYTHON:-$(uv run python -c "import sys; print(sys.executable)")}
export SLURM_TEST_ROOT SLURM_TEST_PORT=16847 SLURM_CONF OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 COLUMNS=150
folder=$(mktemp -d /tmp/walk-XXXX) && chmod 755 "$folder" # munged wants its folder to be open to others
SLURM_TEST_ROOT=$folder/slurm SLURM_CONF=$folder/slurm/slurm.conf
scripts/slurm-ci.sh install
scripts/slurm-ci.sh start > /dev/null
here=$PWD
trap '"$here"/scripts/slurm-ci.sh stop; rm -rf "$folder"' EXIT
mkdir -p "$folder/configs/cluster"
cat > "$folder/configs/cluster/mine.yaml" << YAML
about: one node, two CPUs a job, two jobs at a time
scheduler: slurm
partition: main
cpus: 2
memory_gb: 1
parallel: 2
bundle_minutes: 2
unknown_minutes: 1
signal_seconds: 10
poll_seconds: 0
settle_seconds: 2
YAML
cd "$folder"
peftbench() { PYTHONPATH=$here "$python" -m peftbench "$@"; }
say() { printf '\n%s\n' "$*"; }
run() { printf '\n$ %s\n' "$*"; "$@" 2>&1 || true; }
done_() { find results/runs/records -name '*.json' 2> /dev/null | wc -l; }
until_done() { # COUNT: wait for so many records, at most five minutes
  for _ in $(seq 300); do
    [ "$(done_)" -lt "$1" ] || return 0
    sleep 1
  done
}
crash() { # kill what this Slurm runs, as a power cut does
  local process of
  for process in /proc/[0-9]*; do
    of=$(tr '\0' '\n' 2> /dev/null < "$process/environ" | grep -E '^(SLURM_CONF|SLURM_JOB_ID)=') || continue
    [[ $of == *"SLURM_CONF=$SLURM_CONF"* ]] || continue
    if [[ $of == *SLURM_JOB_ID=* || $(cat "$process/comm") == slurmstepd ]]; then
      kill -9 "${process#/proc/}" 2> /dev/null || true
    fi
  done
}
words=(method=bitfit,lora task=synthetic_paraphrase size=100 budget=steps budget.steps=20 'seed=range(0,20)' cluster=mine)
walk() {
  echo "# made by scripts/cluster_walk.sh, commit $(git -C "$here" rev-parse --short HEAD), Slurm $(sinfo --version | cut -d' ' -f2), $(nproc --all) cores"
  run peftbench doctor "${words[@]}"
  run peftbench submit "${words[@]}" --device cpu --threads 1 --workers 1
  run peftbench submit "${words[@]}" --device cpu
  until_done 4
  run peftbench status
  say "# the node goes down: slurmd and all that it started are killed, then slurmd comes back"
  kill -9 "$(cat slurm/pid.slurmd)"
  crash
  sleep 1
  setsid slurmd -D < /dev/null > slurm/log/slurmd-again.out 2>&1 &
  echo $! > slurm/pid.slurmd
  sleep 3
  run squeue -o '%i %T %r'
  until_done 12
  say "# a job with more priority wants the whole node"
  run sbatch -p high -c 8 -o /dev/null --wrap 'sleep 5'
  sleep 4
  run squeue -o '%i %P %T %r'
  run peftbench status
  until_done 20
  say "# a person takes it all back, and thinks again"
  run peftbench cancel
  sleep 5
  run peftbench status
  run peftbench submit "${words[@]}" --device cpu --threads 1 --workers 1
  until [ -z "$(squeue -h)" ]; do sleep 1; done
  run peftbench collect
  run peftbench submit "${words[@]}" --device cpu
}
mkdir -p "$(dirname "$output")"
walk | sed -e "s#$folder#.#g" -e 's/[[:space:]]*$//' > "$output"
cat "$output"
