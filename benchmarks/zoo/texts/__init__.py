"""Models of texts: a small one, with random weights, of every type that transformers has a config for."""
