"""Everything that makes video."""

if __name__ != "magbench.runners":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.runners', not 'runners'")
