"""A PyTorch implementation of the operations, vectorised over the batch, on any device."""
