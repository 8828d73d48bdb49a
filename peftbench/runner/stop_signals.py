"""How workers are stopped, for those who stop them and for themselves."""

import signal

#: On these a worker writes a checkpoint and leaves; they are held back until it can.
HELD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

#: Seconds that workers get to write a checkpoint after a signal.
GRACE = 60
