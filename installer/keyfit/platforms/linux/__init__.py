"""Linux: the bus from sysfs, the machine by its own tools."""
