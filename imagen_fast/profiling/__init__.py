"""How well a run uses its machine: what was recorded, the verdict on it, and the report."""
