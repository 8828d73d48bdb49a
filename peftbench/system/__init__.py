"""What the project needs of the machine: files written whole, cores and GPUs, the hub's cache."""
