"""Models of pictures, with random weights: a small one of each family of three packages."""
