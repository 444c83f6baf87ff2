"""The embedded model: text ids, a small VAE, weights and the recipe that trained them."""
