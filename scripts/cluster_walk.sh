#!/usr/bin/env bash
# The whole way on a real scheduler of one node, as a text: submit 40 runs, watch, break things, cancel, submit the rest, collect.
# usage: cluster_walk.sh slurm|grid_engine [OUTPUT]; as root on a Debian machine. OUTPUT is results/cluster/NAME.txt unless given.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?usage: cluster_walk.sh slurm|grid_engine [OUTPUT]}
output=$(realpath -m "${2:-results/cluster/$name.txt}")
uv=uv
[ -x .uv/bin/uv ] && uv=.uv/bin/uv
python=${PYTHON:-$($uv run python -c "import sys; print(sys.executable)")}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 COLUMNS=150
folder=$(mktemp -d /tmp/walk-XXXX) && chmod 755 "$folder" # munged wants its folder to be open to others
here=$PWD

# each site: its daemons, what of the cluster's yaml is its own, how its version is told, and the mishaps
case $name in
  slurm)
    daemons=$here/scripts/slurm-ci.sh own=$'partition: main\nmemory_gb: 1'
    export SLURM_TEST_ROOT=$folder/site SLURM_TEST_PORT=16847 SLURM_CONF=$folder/site/slurm.conf
    version() { echo "Slurm $(sinfo --version | cut -d' ' -f2)"; }
    waiting() { squeue -h; }
    mishaps() {
      say "# the node goes down: slurmd and all that it started are killed, then slurmd comes back"
      kill -9 "$(cat site/pid.slurmd)"
      crash SLURM_JOB_ID slurmstepd
      sleep 1
      setsid slurmd -D < /dev/null > site/log/slurmd-again.out 2>&1 &
      echo $! > site/pid.slurmd
      sleep 3
      run squeue -o '%i %T %r'
      until_done 12
      say "# a job with more priority wants the whole node"
      run sbatch -p high -c 8 -o /dev/null --wrap 'sleep 5'
      sleep 4
      run squeue -o '%i %P %T %r'
      run peftbench status
    }
    ;;
  grid_engine)
    daemons=$here/scripts/sge-ci.sh own="memory_gb: null" # h_vmem would limit virtual memory
    export SGE_TEST_ROOT=$folder/site SGE_TEST_PORT=16494
    export SGE_ROOT=$folder/site SGE_CELL=ci SGE_QMASTER_PORT=16494 SGE_EXECD_PORT=16495
    version() { qstat -help | head -1; }
    waiting() { qstat -u '*'; }
    mishaps() {
      say "# all jobs that run are killed, as by a node that has no memory left"
      crash SGE_JOB_SPOOL_DIR
      sleep 3
      run qstat
      say "# the qmaster is away, then comes back"
      kill -9 "$(cat site/pid.qmaster)"
      sleep 1
      run peftbench status
      SGE_ND=1 setsid /usr/lib/gridengine/sge_qmaster < /dev/null > site/log/qmaster-again.out 2>&1 &
      echo $! > site/pid.qmaster
      for _ in $(seq 30); do qconf -sm > /dev/null 2>&1 && break || sleep 1; done
      run peftbench status
      say "# what was killed is submitted again"
      until_done 12
      run peftbench submit "${words[@]}" --device cpu --threads 1 --workers 1
    }
    ;;
  *) echo "cluster_walk.sh knows slurm and grid_engine, not $name" >&2 && exit 2 ;;
esac

"$daemons" install
"$daemons" start > /dev/null
trap '"$daemons" stop; rm -rf "$folder"' EXIT
mkdir -p "$folder/configs/cluster"
cat > "$folder/configs/cluster/mine.yaml" << YAML
about: one node, two CPUs a job, two jobs at a time
scheduler: $name
$own
cpus: 2
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
crash() { # VARIABLE [COMMAND]: kill processes of this site with the variable of a job, or of this name, as a power cut does
  local process of
  for process in /proc/[0-9]*; do
    of=$(tr '\0' '\n' 2> /dev/null < "$process/environ") || continue
    [[ $of == *"$folder/site"* ]] || continue
    if [[ $of == *"$1="* || $(cat "$process/comm") == "${2:-}" ]]; then
      kill -9 "${process#/proc/}" 2> /dev/null || true
    fi
  done
}
words=(method=bitfit,lora task=synthetic_paraphrase size=100 budget=steps budget.steps=20 'seed=range(0,20)' cluster=mine)
walk() {
  echo "# made by scripts/cluster_walk.sh $name, commit $(git -C "$here" rev-parse --short HEAD), $(version), $(nproc --all) cores"
  run peftbench doctor "${words[@]}"
  run peftbench submit "${words[@]}" --device cpu --threads 1 --workers 1
  run peftbench submit "${words[@]}" --device cpu
  until_done 4
  run peftbench status
  mishaps
  until_done 20
  say "# a person takes it all back, and thinks again"
  run peftbench cancel
  sleep 5
  run peftbench status
  run peftbench submit "${words[@]}" --device cpu --threads 1 --workers 1
  until [ -z "$(waiting)" ]; do sleep 1; done
  run peftbench collect
  run peftbench submit "${words[@]}" --device cpu
}
mkdir -p "$(dirname "$output")"
walk | sed -u -e "s#$folder#.#g" -e "s#$HOME/#~/#g" -e 's/[[:space:]]*$//' > "$output"
cat "$output"
