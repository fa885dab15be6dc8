"""A virtual machine that real drivers can be installed in, and USB tokens to plug into it."""
