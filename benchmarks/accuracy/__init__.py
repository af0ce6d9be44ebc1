"""How often the recognizers are right on the same pictures."""
