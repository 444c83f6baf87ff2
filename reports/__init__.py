"""Records in, tables, plots and pages out."""

if __name__ != "magbench.reports":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.reports', not 'reports'")
