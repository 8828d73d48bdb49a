"""A method on a tiny model of a family: what cannot be inserted there is refused at once."""

from peftbench import checkpoints, forms
from peftbench.backbone import Backbone
from peftbench.encoder import Encoder
from peftbench.method import make
from peftbench.run import ConfigError, Run


def check(run: Run, chain: bool = False) -> None:
    """Refuse a run whose method its model cannot take, on a tiny model of its family.

    Args:
        run: any.
        chain: whether the method is to take what it learnt as a prior.

    Raises:
        ConfigError: saying what the model lacks or which value is out of range.
    """
    method, model, classes = make(run.method), run.model, run.task["classes"]
    shape = model["parts"]["tiny"] | {"vocab_size": 264}
    language = (run.form or {}).get("name") == forms.WORDS
    skeleton = checkpoints.skeleton(model | {"shape": shape}, language=language)
    words = list(range(classes)) if language else None
    encoder = Encoder(Backbone(model, loaded=skeleton, words=words), classes, seed=0)
    encoder.rehearsal = True
    try:
        method.insert(encoder)
        if chain:
            method.chain(encoder)
    except ValueError as error:
        raise ConfigError(f"method={run.method['name']} on {model['name']}: {error}") from error
