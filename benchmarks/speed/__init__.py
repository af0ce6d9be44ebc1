"""How fast the same clips are processed, end to end and by the recognizer alone."""
