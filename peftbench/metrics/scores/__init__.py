"""Metrics of tasks, by scikit-learn and scipy, None where undefined; one metric, one file.

A module declares its `METRIC`; `task_metrics` lists this package. The libraries are imported by the
functions that need them, since planning needs only the names.
"""
