"""What is inside a driver package file: one module a format, each from bytes to a small report.

The files come from vendors and are not trusted. Every reader has limits on size, depth and count, refuses what is out of
form instead of repairing it, and runs in a child process without rights (`python -m keyfit.publisher.inspection`, started
by `keyfit.publisher.inspection.run`; security H2, H3). Nothing is unpacked to disk.
"""
