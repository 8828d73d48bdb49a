"""Words that everyone tries: accepted, or answered with what to write."""

import pytest

from peftbench.config import aliases
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError

ACCEPTED = {
    "lr=1e-3": "train.lr=1e-3",
    "learning_rate=1e-3,1e-4": "train.lr=1e-3,1e-4",
    "batch_size=4": "train.batch_size=4",
    "max_length=64": "train.max_length=64",
    "epochs=3": "budget.epochs=3",
    "num_train_epochs=3": "budget.epochs=3",
    "seeds=5": "seed=0,1,2,3,4",
    "seed=0-4": "seed=range(0,5)",
    "seed=0-1,7": "seed=0,1,7",
    "size=10%": "size=0.1",
    "size=30%,100%": "size=0.3,full",
    "size=1e3": "size=1000",
    "method=all": "method=glob(*)",
    "method=LoRA": "method=lora",
    "method=mam,houlsby": "method=combined,adapter",
    "method=BH-PEFT": "method=bayes_hybrid",
    "method=prefix_tuning": "method=prefix",
    "method=[lora,bitfit]": "method=lora,bitfit",
    "task=MRPC": "task=mrpc",
    "task=SST-2": "task=sst2",
    "model=RoBERTa-base": "model=roberta_base",
    "exclude=seed=1-3": "exclude=seed=1,2,3",
}


@pytest.mark.parametrize("given", ACCEPTED)
def test_common_words_mean_the_same_runs(given):
    more = ["seed=range(0,4)"] if given.startswith("exclude") else []
    found = plan(given, *more, ask_hub=False).runs
    assert [run.key for run in found] == [
        run.key for run in plan(ACCEPTED[given], *more, ask_hub=False).runs
    ]


ANSWERED = {
    "rank=8": "write method.rank=8",
    "steps=100": "write budget=steps budget.steps=100",
    "budget.seconds=60": "write budget=seconds budget.seconds=60",
    "output_dir=out": "write --results out",
    "device=cuda": "write --device cuda",
    "dataset=mrpc": "write task=mrpc",
    "seeds=0,1": "seed=0,1",
    "seed=4-0": "seed=0-4",
    "use_dora=true": "write method.use_dora=true",
    "use_rslora=true": "write method.use_rslora=true",
    "targets=[query]": "write method.target_modules=[query]",
    "warmup_ratio=0.1": "write train.warmup_steps=0.1",
    "train.warmup_ratio=0.1": "write train.warmup_steps=0.1",
    "warmup=0.1": "write train.warmup_steps=0.1",
    "clip=null": "write train.max_grad_norm=null",
    "schedule=constant": "write train.lr_scheduler_type=constant",
    "micro_batch=2": "write train.micro_batch_size=2",
    "evaluations=2": "write train.num_evals=2",
    "fp16=true": "write train.precision=fp16",
    "early_stopping_patience=3": "best_on_holdout checkpoint_selection.patience=3",
    "bitfit": "write method=bitfit",
    "MRPC": "write task=MRPC",
    "train.lr=1e-3,": "a value is missing after the last ','",
}


@pytest.mark.parametrize("given", ANSWERED)
def test_other_words_are_answered_with_what_to_write(given):
    with pytest.raises(ConfigError) as refused:
        plan(given, ask_hub=False)
    assert ANSWERED[given] in str(refused.value)
    assert "expecting" not in str(refused.value)


def test_a_users_own_option_comes_before_a_common_name():
    assert aliases.same_name("mam", ["combined", "lora"]) == "combined"
    assert aliases.same_name("mam", ["combined", "MAM"]) == "MAM"
    assert aliases.same_name("mam", ["mrpc"]) is None
