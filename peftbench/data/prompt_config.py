"""How texts and labels are put to a model: a template, a word for each class, demonstrations.

Gao, Fisch and Chen: Making pre-trained language models better few-shot learners (LM-BFF), ACL
2021, arXiv 2012.15723. Yang, Zhang, Xu, Lu, Heng and Lam: Unveiling the generalization power of
fine-tuned large language models (FTICL), NAACL 2024, arXiv 2403.09162.

With `prompt=words` there is no new head: of the words that stand for the classes the language model
scores the first tokens at the answer's place, and these scores are the logits. With
`prompt=demonstrations` a classification head answers as ever. With `prompt=generate`, the prompt of
tasks that want texts, the whole language model writes them. In all the same few solved examples may
stand in front of every text that is trained or evaluated on; they are never trained on.

Departures from the papers: the cross entropy is over the label words, not over the vocabulary (nor
over an end-of-text token after the word); label words are the same for all models of a task.
"""

from typing import Any

import numpy as np

from peftbench.core.configs import GENERATE, SLOT, WORDS, ModelConfig, PromptConfig, TaskConfig
from peftbench.core.errors import ConfigError, at_least
from peftbench.core.run import Json, Run
from peftbench.core.text import unescaped
from peftbench.data import loading

#: What `prompt=generate` says, for runs that write texts and name no prompt.
_PLAIN: Json = {
    "name": GENERATE,
    "causal": None,
    "num_demonstrations": 0,
    "reserved": 8,
    "separator": "\n\n",
}


def resolve_prompt(node: Json, model: ModelConfig, task: TaskConfig) -> PromptConfig:
    """The prompt of a run: the template that suits the model, checked.

    Raises:
        ConfigError: for a task without classes, or what no template, words or counts can be.
    """
    name = node["name"]
    if task.generation:
        return generation_prompt(node, model, task)
    if name == GENERATE:
        what = "values" if task.regression else "classes"
        raise ConfigError(
            f"prompt={name}: the answers of {task.name} are {what}, not texts; use prompt=head, or "
            "prompt=words"
        )
    language_model = model.family_config.language_model
    if language_model is None:
        raise ConfigError(
            f"prompt={name}: configs/model_family/{model.family}.yaml has no `language_model:`"
        )
    if task.kind == "regression":
        raise ConfigError(
            f"prompt={name}: the answers of {task.name} are values, and words stand for classes; "
            "use prompt=head"
        )
    kind = language_model.kind
    template, words = unescaped(node[kind]), node["verbalizer"]
    if template is None or words is None:
        raise ConfigError(
            f"prompt={name}: no template or words for {task.name}; give prompt.{kind}="
            "'{0} It was {answer}' and prompt.verbalizer=[first class,second class]"
        )
    _check_template(f"prompt.{kind}", template, len(task.texts), kind, name)
    if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
        raise ConfigError(f"prompt.verbalizer is a list of words, got {words!r}")
    if len(words) != task.classes or len(set(words)) != len(words):
        raise ConfigError(
            f"prompt.verbalizer: {task.name} has {task.classes} classes, each needs a word of its "
            f"own, got {', '.join(words)}"
        )
    return _made(node, template, words)


def generation_prompt(node: Json | None, model: ModelConfig, task: TaskConfig) -> PromptConfig:
    """The prompt of a run that writes texts: the node's template, else the task's, else lines.

    Args:
        node: of `prompt=generate`; None where no prompt was named.
        model: has to be causal.
        task: a generation.

    Raises:
        ConfigError: for an encoder, another prompt, or what no template or count can be.
    """
    node = _PLAIN if node is None else node
    if node["name"] != GENERATE:
        raise ConfigError(
            f"prompt={node['name']}: the answers of {task.name} are texts, not classes; use "
            f"prompt={GENERATE}"
        )
    if not model.causal:
        raise ConfigError(
            f"{task.name} needs texts, and {model.name} is an encoder, which writes none; "
            "choose a causal language model: model=smollm2_135m, or model=auto with a checkpoint "
            "of GPT-2, Llama or Qwen2"
        )
    slots = [f"{{{number}}}" for number in range(len(task.texts))]
    template = unescaped(node["causal"]) or task.template or "\n".join([*slots, "{answer}"])
    key = "prompt.causal" if node["causal"] else "task.template"
    _check_template(key, template, len(task.texts), "causal", GENERATE)
    return _made(node, template, [])


def _made(node: Json, template: str, words: list[str]) -> PromptConfig:
    at_least("prompt.num_demonstrations", node["num_demonstrations"], 0, whole=True)
    at_least("prompt.reserved", node["reserved"], 0, whole=True)
    if node["num_demonstrations"] > node["reserved"]:
        raise ConfigError(
            f"prompt.num_demonstrations={node['num_demonstrations']} is more than the examples "
            f"kept back for them; set prompt.reserved={node['num_demonstrations']} or more"
        )
    return PromptConfig(
        name=node["name"],
        template=template,
        verbalizer=words,
        num_demonstrations=node["num_demonstrations"],
        reserved=node["reserved"],
        separator=_separator(node.get("separator")),
    )


def _separator(given: Any) -> str | None:
    if given is not None and not (isinstance(given, str) and given):
        raise ConfigError(
            f"prompt.separator={given!r} is a text between demonstrations, such as '\\n\\n', or "
            "null for a line break"
        )
    found = unescaped(given)
    return None if found == "\n" else found


def _check_template(key: str, template: Any, texts: int, kind: str, name: str) -> None:
    slots = sorted(SLOT.findall(str(template)))
    wanted = sorted([*map(str, range(texts)), "answer"])
    if slots != wanted:
        raise ConfigError(
            f"{key}={template!r} must hold each of {' '.join(f'{{{slot}}}' for slot in wanted)} "
            "once, and no other braces"
        )
    if name in (WORDS, GENERATE) and kind == "causal" and not template.endswith("{answer}"):
        raise ConfigError(
            f"{key}={template!r}: a causal model sees nothing after the answer; end with {{answer}}"
        )


def reserved(run: Run, label: np.ndarray) -> np.ndarray:
    """Numbers of the training examples that are kept back for demonstrations, nearest first.

    They come from the end of the order of which subsets are the beginning, so that only a run on
    (almost) all examples loses any; the classes take turns, so that every beginning is balanced.

    Args:
        run: its prompt says how many, its subset seed which; none without a prompt.
        label: (examples,) classes of all training examples.

    Raises:
        ConfigError: if a class has too few examples.
    """
    if run.prompt is None:
        return np.zeros(0, dtype=np.int64)
    classes, seed, count = run.task.classes, run.seeds()["subset"], run.prompt.reserved
    last = loading.stratified(label, classes, seed)[::-1]
    if run.task.generation:
        if len(last) <= count:
            raise ConfigError(
                f"prompt.reserved={count} leaves nothing to train on of {len(last)} examples; "
                "choose fewer"
            )
        return last[:count]
    turns = np.random.default_rng(seed).permutation(classes)
    members = [last[label[last] == value] for value in turns]
    most = -(-count // classes)
    if min(map(len, members)) <= most:
        raise ConfigError(
            f"prompt.reserved={count} leaves nothing to train on of a class with "
            f"{min(map(len, members))} examples; choose fewer"
        )
    return in_turns(members, count)


def in_turns(members: list[np.ndarray], count: int) -> np.ndarray:
    """So many numbers of examples, one of each class after the other.

    Args:
        members: numbers of the examples of each class, enough of each.
        count: of all.
    """
    classes = len(members)
    return np.array([members[k % classes][k // classes] for k in range(count)], dtype=np.int64)
