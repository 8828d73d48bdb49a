"""The rehearsal before the first training, and the share of rows that is held out."""

import checkpoints as made
import pytest
import tiny

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run


@pytest.mark.parametrize("share", ["1", "0", "-0.2", "1.5", "100", "0.0", "null"])
def test_share_of_rows_to_hold_out(tmp_path, share):
    with pytest.raises(ConfigError, match="must be greater than 0 and less than 1"):
        plan("model=tiny", *made.table(tmp_path), f"task.validation_fraction={share}")
    plan("model=tiny", *made.table(tmp_path), "task.validation_fraction=0.5")


@pytest.mark.parametrize("prompt", ["head", "demonstrations"])
@pytest.mark.parametrize("method", tiny.METHODS)
def test_every_method_passes_its_rehearsal(tmp_path, cache_folder, method, prompt):
    words = [f"method={method}", *made.table(tmp_path), "train.max_length=32"]
    if prompt != "head":
        words += ["prompt=demonstrations", "prompt.verbalizer=[good,bad]"]
        words += ["prompt.masked='{0} it was {answer}'"]
    (run,) = plan("model=tiny", *words).runs
    dry_run.rehearse(run, None)
