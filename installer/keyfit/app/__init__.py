"""Use cases: what a user can ask of Keyfit, each returning an `OperationResult`. No text is printed here."""
