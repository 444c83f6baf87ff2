"""Everything that measures a video."""

if __name__ != "magbench.metrics":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.metrics', not 'metrics'")
