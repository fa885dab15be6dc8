"""Changes the machine: the journal, one module per kind of step, carrying out, undoing, recovering."""
