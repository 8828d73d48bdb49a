"""What the adapters library computes, stored for tests/papers/test_adapters_library.py.

The library needs transformers 4.57, which cannot live beside ours: this runs in an environment of
its own and writes the weights of a tiny BERT with each method inserted, and its hidden states.

usage: uv run --no-project --with "adapters==1.3.0" --with "transformers==4.57.*" \
    python scripts/golden_adapters.py
"""

from pathlib import Path

import adapters
import torch
import transformers
from adapters import DoubleSeqBnConfig, ParBnConfig, PrefixTuningConfig, SeqBnConfig
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

OUT = Path(__file__).resolve().parents[1] / "tests/golden/adapters.safetensors"
METHODS = {
    "adapter": DoubleSeqBnConfig(reduction_factor=4, non_linearity="gelu"),
    "pfeiffer": SeqBnConfig(reduction_factor=4, non_linearity="relu"),
    "parallel": ParBnConfig(reduction_factor=4, non_linearity="relu", scaling=2.0),
    "prefix": PrefixTuningConfig(prefix_length=5, bottleneck_size=8),
}
SHAPE = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}


def main() -> None:
    """Write tests/golden/adapters.safetensors."""
    torch.manual_seed(0)
    ids = torch.randint(4, 264, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = mask[2, 4:] = 0
    tensors = {"input_ids": ids, "attention_mask": mask}
    for name, config in METHODS.items():
        torch.manual_seed(1)
        model = BertModel(BertConfig(**SHAPE))
        adapters.init(model)
        model.add_adapter(name, config=config)
        model.set_active_adapters(name)
        with torch.no_grad():
            for parameter in model.parameters():  # away from zeros and ones
                parameter.add_(0.05 * torch.randn(parameter.shape))
            states = model.eval()(ids, attention_mask=mask).last_hidden_state
            model.set_active_adapters(None)
            assert not torch.allclose(states, model(ids, attention_mask=mask).last_hidden_state)
        kept = {n: t for n, t in model.state_dict().items() if ".pool." not in n}
        tensors |= {f"{name}/weights/{n}": t.clone() for n, t in kept.items()}
        tensors[f"{name}/states"] = states
    versions = {"adapters": adapters.__version__, "transformers": transformers.__version__}
    save_file(tensors, OUT, metadata=versions)


if __name__ == "__main__":
    main()
