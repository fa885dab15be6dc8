"""What lies beside the signed data of an offline kit: its start menu for people."""
