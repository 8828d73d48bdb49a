"""What `import peftbench` offers to programs and notebooks; see docs/python-api.md."""
