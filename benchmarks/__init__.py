"""Outside the wheel: leaf-rt beside other packages for facial expressions, in speed and in accuracy."""
