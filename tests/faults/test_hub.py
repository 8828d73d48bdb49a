"""The hub's real client against a stand-in on this machine: what fails, and what is said."""

import json
import re

import checkpoints as made
import pytest
from hub_server import COMMIT, Hub

MODEL = "people/bert-small"

SLOW = pytest.mark.slow  # each starts several processes

#: Locates the model, prints its folder, or what is said instead.
LOCATE = """
from peftbench.core.errors import ConfigError
from peftbench.system import hub, hub_client
hub_client.PATIENCE, hub_client.EVERY = {patience}, 0.2
try:
    print(hub.snapshot({name!r}, {revision!r}, hub.CHECKPOINT_FILES))
except ConfigError as error:
    print("refused:", error)
"""


@pytest.fixture
def hub(tmp_path):
    made.checkpoint(tmp_path / "models" / MODEL)
    served = Hub(tmp_path)
    yield served
    served.close()


def locate(hub, name=MODEL, revision=COMMIT, patience=10, **environment):
    done = hub.run(LOCATE.format(name=name, revision=revision, patience=patience), **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", *(pytest.param(f, marks=SLOW) for f in ("config.json", "vocab.txt"))],
)
def test_wrong_byte_is_never_used(hub, file):
    """Of the right length; the file to delete is named, and once it is gone all is well."""
    if file == "vocab.txt":
        (hub.root / "models" / MODEL / file).write_text("a\nfew\nwords of a vocabulary\n")
    hub.wrong = file
    out, _ = locate(hub)
    assert out.startswith("refused:")
    assert f"{file} of models--people--bert-small is not what the hub holds" in out
    blob = re.search(r"delete (\S+) and run again", out)[1]
    assert locate(hub)[0] == out, "what is in the cache is not trusted either"
    hub.wrong = ""
    hub.root.joinpath(blob).unlink()
    out, _ = locate(hub)
    assert out.endswith(f"snapshots/{COMMIT}")


@SLOW
def test_reasons_are_told_apart(hub):
    told = {
        "repository": locate(hub, "people/nobody")[0],
        "revision": locate(hub, revision="d" * 40)[0],
        "offline": locate(hub, HF_HUB_OFFLINE="1")[0],
        "connection": locate(hub, HF_ENDPOINT="http://127.0.0.1:9")[0],
    }
    assert "the hub has no repository people/nobody: check its spelling" in told["repository"]
    assert "no revision dddd" in told["revision"]
    assert "TRANSFORMERS_OFFLINE is set, and the cache does not have it" in told["offline"]
    assert "no connection to the hub" in told["connection"]
    hub.status, hub.times, hub.code = 401, 99, "GatedRepo"
    assert "is gated: accept its terms" in locate(hub)[0]
    hub.status, hub.code = 429, ""
    assert "too many requests (429)" in locate(hub, patience=0)[0]
    hub.times = 0
    (hub.root / "models" / MODEL / "model.safetensors").unlink()
    assert "has no file *.safetensors" in locate(hub)[0]
    assert all("provide it in one of three ways" in text for text in told.values())


@pytest.mark.parametrize("status", [429, *(pytest.param(n, marks=SLOW) for n in (502, 503))])
def test_waits_as_the_hub_asks(hub, status):
    hub.status, hub.times, hub.retry_after = status, 8, "1"
    out, said = locate(hub, patience=60)
    assert out.endswith(f"snapshots/{COMMIT}"), said
    assert f"{MODEL}: the hub answers {status} (busy); trying again in 1 s" in said


def test_what_travels_is_said(hub):
    out, said = locate(hub)
    assert out.endswith(f"snapshots/{COMMIT}")
    lines = said.splitlines()
    assert re.match(rf"fetching {MODEL}, 0\.\d MB$", lines[0]), said
    assert re.match(rf"fetched {MODEL}: 0\.\d MB in \d+ s, [\d.]+ MB/s", lines[-1]), said
    asked = len(hub.asked)
    out, said = locate(hub)
    assert said == "", "nothing travels twice"
    assert not any(line.startswith("GET") and "resolve" in line for line in hub.asked[asked:])


@SLOW
def test_broken_transfer_goes_on(hub):
    hub.cut = 1
    out, _ = locate(hub)
    assert out.endswith(f"snapshots/{COMMIT}")


PLAN = """
import json, sys
from peftbench.config.sweep import plan
planned = plan("model=auto", "model.checkpoint={name}", "model.revision={revision}", "task=mrpc")
print(json.dumps([planned.runs[0].key, planned.runs[0].model.revision]))
"""


@SLOW
def test_revision_is_found_once_and_kept(hub):
    """The same words mean the same weights, though the hub has a newer commit by then."""
    words = {"name": MODEL, "revision": "null"}
    first = json.loads(hub.run(PLAN.format(**words)).stdout)
    assert first[1] == COMMIT
    pinned = json.loads(hub.run(PLAN.format(name=MODEL, revision=COMMIT)).stdout)
    assert pinned == first, "as if it had been given"
    hub.commit = "beef" + 36 * "1"
    again = hub.run(PLAN.format(**words))
    assert json.loads(again.stdout) == first


DATASET = """
from peftbench.system import hub
print(hub.resolved("people/jokes", "dataset"))
"""


@SLOW
def test_the_commit_of_a_data_set_is_found_once_and_kept(hub):
    folder = hub.root / "datasets/people/jokes/jokes"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"x")
    done = hub.run(DATASET)
    assert done.stdout.strip() == COMMIT, done.stderr
    assert f"people/jokes was named without a revision: from now on it is {COMMIT}" in done.stderr
    assert "task.source.revision=COMMIT gives another one" in done.stderr
    asked = len(hub.asked)
    hub.commit = "beef" + 36 * "1"
    done = hub.run(DATASET)
    assert done.stdout.strip() == COMMIT
    assert done.stderr == ""
    assert len(hub.asked) == asked, "the hub is not asked again"
    missing = hub.run(DATASET.replace("jokes", "nothing"))
    assert "the hub has no repository people/nothing" in missing.stderr


ANY = """
from peftbench.config.sweep import plan
from peftbench.data import loading
task = plan("task=hub", "task.dataset=people/jokes", "model=tiny").runs[0].task
print(task.source["revision"], task.class_names, len(loading.load_split(task, "train", None).label))
"""


@SLOW
def test_any_data_set_is_described_and_only_what_is_read_is_fetched(hub):
    folder = hub.root / "datasets/people/jokes"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.csv").write_text("text,label\nha,fun\nwell,dull\n")
    done = hub.run(ANY)
    assert done.stdout == f"{COMMIT} ['dull', 'fun'] 2\n", done.stderr
    assert any("resolve" in line and "validation.csv" in line for line in hub.asked)
    assert not any("resolve" in line and "test.csv" in line for line in hub.asked)
    asked = len(hub.asked)
    assert hub.run(ANY, HF_HUB_OFFLINE="1").stdout == done.stdout
    assert len(hub.asked) == asked
