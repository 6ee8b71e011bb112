"""The fast implementations for CPU tensors, one file an operation."""
