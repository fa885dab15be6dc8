"""The commands of `keyfit-publish`, one module each. What a command needs is imported when it runs."""
