"""Suites, prompts, the procedural world, video files, weights manifest."""

if __name__ != "magbench.data":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.data', not 'data'")
