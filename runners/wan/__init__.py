"""The causal Wan2.1 transformer: one class for `mini`, the test size and the 1.3B checkpoints."""
