#!/usr/bin/env bash
# Train the next missing parts of the papers' grids, at low priority, for so many minutes.
# usage: scripts/next_runs.sh MINUTES [DATA]
#        scripts/next_runs.sh --seconds [DATA]   the budgets in seconds, in one go, at normal priority
#   DATA: the folder of GLUE; ../shared/glue by default
# It works in ../next_runs, a worktree with an environment of its own, on the branch next-runs, which
# it first brings to the newest commit of main. Each finished part (the choice of one learning rate,
# or one cell with all its seeds) is a commit there; an unfinished one goes on with the next call.
# Take them over with: git merge next-runs
set -euo pipefail
minutes=${1:?usage: scripts/next_runs.sh MINUTES|--seconds [DATA]}
data=${2:-../shared/glue}
unset PYTHONDONTWRITEBYTECODE
cd "$(dirname "$0")/.."
top=$PWD tree=$PWD/../next_runs uv=uv
[ -x .uv/bin/uv ] && uv=$PWD/.uv/bin/uv

exec 9> "$tree.lock"
flock -n 9 || { echo "another next_runs.sh is at work" >&2; exit 1; }

git worktree prune
git show-ref --quiet refs/heads/next-runs || git branch -q next-runs main
[ -d "$tree" ] || git worktree add -q "$tree" next-runs
cd "$tree"
# a call that was killed may have left staged records, which their part commits, and changed choices
git reset -q
git add -u -- ':(glob)results/**/choices/**'
git diff --cached --quiet || git commit -qm "Choices of a call that was killed"
# what an unfinished part left here and main has by now would stop the rebase
git ls-files --others --exclude-standard -z | while IFS= read -r -d '' file; do
    ! git cat-file -e "main:$file" 2>/dev/null || rm -- "$file"
done
git rebase -q main
nice "$uv" sync -q --group mpnet --group smollm2
echo "next-runs is at $(git log -1 --format=%h), with main at $(git -C "$top" log -1 --format=%h main)"
low=(nice -n 5) # 19 would leave it nothing beside other work: each process is a group of its own, see sched(7)
[ "$minutes" != --seconds ] || low=()
exec "${low[@]}" .venv/bin/python scripts/next_runs.py "$minutes" --data "$data"
