"""Learning rates that Optuna's tree-structured Parzen estimator proposes, one after the other.

Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization". The study is in memory: it is
made again from the scores of trials, so that a search which was stopped proposes the same rates.
"""

from typing import Any

from peftbench.core.errors import ConfigError
from peftbench.core.tuning import SearchSpace, rounded

#: Rates that are drawn at random before scores count.
STARTUP = 3

#: Proposals in a row that were made before, after which a range has no further rate.
_SAME = 1000


def optuna() -> Any:
    """The library.

    Raises:
        ConfigError: where it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "--sampler tpe needs Optuna, which is not installed: pip install 'peftbench[tpe]', in "
            "a clone `uv sync --extra tpe`; or leave --sampler out"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Proposals:
    """Rates for one cell, from its range."""

    def __init__(self, space: SearchSpace):
        library = optuna()
        sampler = library.samplers.TPESampler(n_startup_trials=STARTUP, seed=0)
        self._space = space
        self._study = library.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[float, Any] = {}
        self._scores: dict[float, float] = {}

    def ask(self) -> float:
        """The next rate, another one than all before.

        Raises:
            ConfigError: if the range has no other one of as many figures.
        """
        for _ in range(_SAME):
            trial = self._study.ask()
            rate = rounded(trial.suggest_float("lr", self._space.low, self._space.high, log=True))
            if rate not in self._scores:
                self._asked[rate] = trial
                return rate
            self._study.tell(trial, self._scores[rate])
        raise ConfigError(
            f"recipe.search.lr: [{self._space.low}, {self._space.high}] is too narrow for "
            f"{len(self._scores) + 1} different rates; widen it, or use fewer --trials"
        )

    def tell(self, rate: float, score: float) -> None:
        """Note what a rate that was asked for gave, larger for better; -inf where it diverged."""
        self._scores[rate] = score
        self._study.tell(self._asked.pop(rate), score)
