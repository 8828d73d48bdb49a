"""Names of the release before mean what they meant, and say what they are called now."""

import re
import subprocess
import sys
import warnings

import pytest
from click.testing import CliRunner

from peftbench import plan
from peftbench.analysis import fields
from peftbench.claims.schema import parse_conditions
from peftbench.cli.main import main
from peftbench.config import catalog, old_names
from peftbench.config.cluster import read as read_cluster
from peftbench.core.errors import ConfigError, OldName

PAIRS = {
    "train.batch=8": "train.batch_size=8",
    "train.micro_batch=4": "train.micro_batch_size=4",
    "train.clip=null": "train.max_grad_norm=null",
    "train.warmup=0.2": "train.warmup_steps=0.2",
    "train.schedule=constant": "train.lr_scheduler_type=constant",
    "train.evaluations=2": "train.num_evals=2",
    "form=head": "prompt=head",
    "form=words form.words=[no,yes] form.demonstrations=2": (
        "prompt=words prompt.verbalizer=[no,yes] prompt.num_demonstrations=2"
    ),
    "augment=noise augment.part=0.3 augment.kinds.order=0.5": (
        "augmentation=noise augmentation.probability=0.3 augmentation.kinds.order=0.5"
    ),
    "select=none": "checkpoint_selection=last",
    "select=holdout select.patience=3": (
        "checkpoint_selection=best_on_holdout checkpoint_selection.patience=3"
    ),
    "task=builtin_similarity": "task=synthetic_similarity",
    "method=hybrid": "method=combined",
    "method=bitfit method.at=[query]": "method=bitfit method.target_modules=[query]",
    "method=lora method.targets=[key] method.power=0.5 method.decompose=true": (
        "method=lora method.target_modules=[key] method.rank_scaling=0.5 method.use_dora=true"
    ),
    "method=peft method.targets=[key]": "method=peft method.target_modules=[key]",
    "method=sparse_adapter method.host=hybrid method.host.members.adapter.width=8": (
        "method=sparse_adapter method.base_method=combined "
        "method.base_method.members.adapter.width=8"
    ),
    "method=mc_dropout method.host=sparse_adapter method.host.host=lora": (
        "method=mc_dropout method.base_method=sparse_adapter method.base_method.base_method=lora"
    ),
    "method=glob(hyb*) task=glob(builtin_*)": (
        "method=combined task=synthetic_acceptability,synthetic_paraphrase,synthetic_similarity"
    ),
    "when='form=head: train.batch=4'": "when='prompt=head: train.batch_size=4'",
    "suite=rounds suite.chain=true method=bayes_hybrid": (
        "suite=continual suite.posterior_as_prior=true method=bayes_hybrid"
    ),
    "suite=shift suite.targets={builtin_similarity:{above:3}}": (
        "suite=shift suite.targets={synthetic_similarity:{above:3}}"
    ),
}


def words(text: str) -> list[str]:
    import shlex

    return ["model=tiny", *shlex.split(text)]


@pytest.mark.parametrize("old", PAIRS)
def test_an_old_name_means_what_the_new_one_does(old):
    with pytest.warns(OldName, match="now; the old name works in this release"):
        before = plan(*words(old))
    now = plan(*words(PAIRS[old]))
    assert before.runs == now.runs
    if "targets={" not in old:  # sets are called as they were asked for
        assert before.evaluations == now.evaluations


def test_a_warm_up_of_the_whole_budget_is_not_taken_for_one_step(tmp_path):
    with pytest.raises(ConfigError, match=r"it was a share of the budget"):
        plan("train.warmup=1")
    text = (catalog.packaged() / "method" / "lora.yaml").read_text()
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(
        text.replace("name: lora", "name: mine").replace("recipe:\n", "recipe:\n  warmup: 1.0\n")
    )
    with pytest.raises(ConfigError, match=r"mine\.yaml: train\.warmup=1\.0: it was a share"):
        plan("method=mine", configs=tmp_path)


def test_an_old_sweep_is_known():
    with pytest.warns(OldName, match="sweep=continual_minilm"):
        assert plan("sweep=rounds_minilm").runs == plan("sweep=continual_minilm").runs


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("train.learning_rate=1e-3", "train.lr=1e-3"),
        ("method.r=4", "method.rank=4"),
        ("method.lora_alpha=4", "method.alpha=4"),
        ("method.lora_dropout=0", "method.dropout=0"),
        ("method.use_rslora=true", "method.rank_scaling=0.5"),
        ("method.use_rslora=false", "method.rank_scaling=1.0"),
        ("method.target_modules=[query,value]", "method=lora"),
    ],
)
def test_names_of_transformers_and_peft_are_known(theirs, ours):
    assert plan("method=lora", theirs).runs == plan("method=lora", *{ours} - {"method=lora"}).runs


@pytest.mark.parametrize(
    ("family", "modules", "roles"),
    [
        ("llama", ["q_proj", "v_proj"], ["query", "value"]),
        ("gpt2", ["c_attn"], ["query", "key", "value"]),
        ("bert", ["attention.self.key", "intermediate.dense"], ["key", "ffn_in"]),
        ("bert", ["dense"], ["attn_out", "ffn_in", "ffn_out"]),
        ("distilbert", ["q_lin", "query"], ["query"]),
    ],
)
def test_target_modules_are_roles_or_names_of_modules(family, modules, roles):
    asked = ("model=tiny", f"model.family={family}", "method=lora")
    by_name, by_role = (
        plan(*asked, f"method.target_modules=[{','.join(names)}]").runs[0]
        for names in (modules, roles)
    )
    assert by_name == by_role
    assert by_name.method.hyperparameters["target_modules"] == roles


def test_one_key_by_two_names_is_refused():
    with pytest.warns(OldName), pytest.raises(ConfigError, match=r"train\.batch_size is given twi"):
        plan("train.batch=8", "train.batch_size=16")
    with pytest.raises(ConfigError, match=r"method\.r and method\.rank are the same key"):
        plan("method=lora", "method.rank=8", "method.r=8")


FILES = {
    "train/mine.yaml": (
        "about: mine\nbatch: 4\nmicro_batch: null\nlr: 1e-3\nschedule: constant\nwarmup: 0.1\n"
        "weight_decay: 0.0\nclip: null\nprecision: fp32\nmax_length: 64\nevaluations: 1\n"
    ),
    "select/brief.yaml": "about: brief\nfraction: 0.2\npatience: 1\n",
    "form/short.yaml": (
        "defaults: [words, _self_]\nname: short\nabout: short\ndemonstrations: 1\ntasks:\n"
        '  sst2:\n    masked: "{0} {answer}"\n    words: [bad, good]\n'
    ),
    "method/around.yaml": (
        "_target_: peftbench.methods.mc_dropout.MCDropout\nname: around\nabout: mine\ndefaults:\n"
        "  - /method@host: lora\n  - _self_\nhost: {power: 0.5}\nsamples: 3\n"
        "recipe: ${.host.recipe}\n"
    ),
    "method/both.yaml": (
        "about: mine\ndefaults:\n  - hybrid\n  - _self_\nname: both\n"
        "recipe: {lr: 1e-4, schedule: constant, warmup: 0.3}\n"
    ),
}


@pytest.fixture
def configs(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_users_own_files_may_hold_old_names(configs):
    with pytest.warns(OldName, match=r"train/mine\.yaml: batch is called batch_size now"):
        (run,) = plan("train=mine", "select=brief", configs=configs).runs
    assert (run.train.batch_size, run.train.lr_scheduler_type, run.train.num_evals) == (
        4,
        "constant",
        1,
    )
    assert run.checkpoint_selection.fraction == 0.2
    with pytest.warns(OldName, match="short.yaml: words is called verbalizer now"):
        (run,) = plan("prompt=short", "task=sst2", configs=configs).runs
    assert (run.prompt.verbalizer, run.prompt.num_demonstrations) == (["bad", "good"], 1)


def test_a_users_own_methods_may_hold_old_names(configs):
    with pytest.warns(OldName, match=r"around\.yaml: host is called base_method now"):
        (run,) = plan("method=around", configs=configs).runs
    assert run.method.implementation == "MCDropout"
    assert run.method.base_method.name == "lora"
    with pytest.warns(OldName, match="both.yaml: hybrid is called combined now"):
        (run,) = plan("method=both", configs=configs).runs
    assert (run.train.lr_scheduler_type, run.train.warmup_steps) == ("constant", 0.3)
    assert list(run.method.hyperparameters["members"]) == ["prefix", "adapter"]


def test_a_family_may_lie_where_it_did(configs, tmp_path):
    text = (catalog.packaged() / "model_family" / "bert.yaml").read_text()
    old = text.replace("language_model: {kind: masked", "words: {class: masked")
    (configs / "model").mkdir()
    (configs / "model" / "_twin.yaml").write_text(old)
    with pytest.warns(OldName, match="_twin.yaml: words is called language_model now"):
        (run,) = plan("model=tiny", "model.family=twin", configs=configs).runs
    assert run.model.family_config.language_model.kind == "masked"


def test_an_option_of_a_users_own_outranks_an_old_name(tmp_path):
    lora = (catalog.packaged() / "method" / "lora.yaml").read_text()
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "hybrid.yaml").write_text(lora.replace("name: lora", "name: hybrid"))
    (run,) = plan("method=hybrid", configs=tmp_path).runs
    assert run.method.target.endswith("LoRA")


def test_a_cluster_is_read_by_old_names(tmp_path):
    with pytest.warns(OldName, match=r"cluster\.max_requeues"):
        assert read_cluster(["cluster=slurm", "cluster.requeues=3"]).max_requeues == 3
    both = ["cluster=slurm", "cluster.requeues=0", "cluster.max_requeues=5"]
    with (
        pytest.warns(OldName),
        pytest.raises(ConfigError, match=r"cluster\.max_requeues is given twice"),
    ):
        read_cluster(both)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("scheduler: slurm\nrequeues: 4\n")
    with pytest.warns(OldName, match="requeues is called max_requeues now"):
        assert read_cluster(["cluster=mine"], tmp_path).max_requeues == 4


def test_old_options_of_the_command_are_understood():
    with pytest.warns(OldName, match="--save-weights"):
        now = old_names.current_arguments(["run", "--keep", "trained", "--processes=2"])
    assert now == ["run", "--save-weights", "--gpus-per-run=2"]


def test_an_old_verb_is_understood_also_behind_options():
    def told(*words):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            done = CliRunner().invoke(main, ["report", *words], prog_name="peftbench")
        return done.output

    note = "peftbench: note: report page is called report html now; the old name works in"
    assert re.match(rf"{note} .*\nUsage: peftbench report html ", told("page", "--help"))
    assert re.match(
        rf"{note} .*\npeftbench: write --check after `report html`", told("--check", "page")
    )
    assert "note" not in told("--results", "page")  # a folder


def test_fields_of_tables_and_conditions_of_claims_are_understood():
    names = ["run.train.num_evals", "run.method.name", "run.method.base_method", "prompt"]
    with pytest.warns(OldName, match="run.train.evaluations is called run.train.num_evals now"):
        assert fields.path("run.train.evaluations", names, "rows=") == names[0]
    for old, new in {"evaluations": names[0], "host": names[2], "form": "prompt"}.items():
        with pytest.warns(OldName):
            assert fields.path(old, names, "rows=") == new
    (condition,) = fields.conditions("method=hybrid", names)
    assert condition.values == ["hybrid", "combined"]
    with pytest.warns(OldName):
        found = parse_conditions("method=hybrid method.host=lora train.batch=8")
    assert found == {"method": "combined", "method.base_method": "lora", "train.batch_size": 8}


def test_the_command_says_it_in_a_line():
    command = [sys.executable, "-m", "peftbench", "plan", "select=none", "--results", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "peftbench: note: select=none is called checkpoint_selection=last now; the old name works "
        "in this release",
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (
            "method=mc_dropout method.host=lora method.host.power=0.5 seed=0,1 train.batch=2,4",
            {
                "method.host": "method.base_method",
                "method.host.power": "method.base_method.rank_scaling",
                "train.batch": "train.batch_size",
            },
        ),
        (
            "select=none,holdout method=hybrid",
            {
                "select=none": "checkpoint_selection=last",
                "select=holdout": "checkpoint_selection=best_on_holdout",
                "method=hybrid": "method=combined",
            },
        ),
        ("form=head", {"form": "prompt"}),
    ],
)
def test_each_name_has_one_note_from_what_was_given_to_what_it_is_called(given, names):
    with pytest.warns(OldName) as noted:
        plan(*words(given))
    assert sorted(str(one.message) for one in noted) == [
        f"{old} is called {new} now; the old name works in this release"
        for old, new in sorted(names.items())
    ]


def test_a_glob_of_all_options_names_no_old_one(recwarn):
    assert len(plan("model=tiny", "method=glob(*)").runs) == len(
        catalog.options("method", (catalog.packaged(),))
    )
    assert not [one for one in recwarn if one.category is OldName]


def test_a_class_that_moved_is_found_and_one_that_is_not_there_is_refused(tmp_path):
    for group, option, old in (
        ("method", "combined", "methods.hybrid.Hybrid"),
        ("suite", "continual", "suites.rounds.Rounds"),
    ):
        text = (catalog.packaged() / group / f"{option}.yaml").read_text()
        new = re.findall(r"^_target_: (\S+)", text, re.MULTILINE)[0]
        (tmp_path / group).mkdir()
        for name, target in (("mine", f"peftbench.{old}"), ("gone", f"{new}d")):
            mine = text.replace(new, target).replace(f"name: {option}", f"name: {name}")
            (tmp_path / group / f"{name}.yaml").write_text(mine)
    asked = ("model=tiny", "method=mine", "suite=mine")
    with pytest.warns(OldName, match=r"mine\.yaml: peftbench\.suites\.rounds\.Rounds is called"):
        planned = plan(*asked, configs=tmp_path)
    assert planned.runs[0].method.target == "peftbench.methods.combined.Combined"
    assert planned.evaluations[0].suite["_target_"] == "peftbench.suites.continual.Continual"
    for word in ("method=gone", "suite=gone"):
        with pytest.raises(ConfigError, match=r"there is no such class; did you mean peftbench\."):
            plan("model=tiny", word, configs=tmp_path)
