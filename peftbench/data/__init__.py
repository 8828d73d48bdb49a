"""From a task to tokens: loading, sampling, prompts, noise, tokenization, batches."""
