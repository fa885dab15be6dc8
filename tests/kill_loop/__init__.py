"""The kill loop: a change is ended at every moment beside a journal commit and at random others, and what `recover` makes of
it is held against the machine before and after. `python -m tests.kill_loop --help`."""
