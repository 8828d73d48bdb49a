"""Classes of failures."""

import signal

from peftbench.core.failures import explain_exit


def test_the_end_of_a_process_has_a_class():
    assert explain_exit(3, 0) == ("exit", "the worker ended with exit code 3")
    assert explain_exit(0, 0)[0] == "exit"
    assert explain_exit(-signal.SIGKILL, 0)[0] == "killed"
    assert explain_exit(-signal.SIGSEGV, 1) == ("killed", "the worker was killed by SIGSEGV")
    assert explain_exit(-60, 0) == ("killed", "the worker was killed by signal 60")
    kind, reason = explain_exit(-signal.SIGKILL, 1)
    assert kind == "memory"
    assert "fewer --workers" in reason
