"""What runs inside a TorchServe worker. Travels inside every archive; knows nothing of the builder."""
