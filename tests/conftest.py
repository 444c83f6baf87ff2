"""All tests: Ctrl-C interrupts, also where a shell has started them in the background, with the signal ignored."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
