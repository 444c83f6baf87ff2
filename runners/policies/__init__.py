"""Cache policies, one file each; `base` holds the contract they share."""
