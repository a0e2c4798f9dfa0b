"""A PyTorch implementation of the operations, vectorised over the batch, on any device.

An operation means the same on every path, and the conformance suite is run on each. Which one is taken:

- Advantages and λ-returns: on CUDA, where Triton is installed, a kernel (`torch_impl.kernels`): short rows
  share a tile, few long ones are cut into segments; else blocks of 32 columns as triangular products
  (`torch_impl.rows`), on the CPU some rows at a time. Of the mask the CPU reads whether it is whole, whether
  rows are side by side, and whether they begin at the left; elsewhere nothing is read, and rows are always
  closed up.
- Whitening: on the CPU the moments of some rows at a time, put together; elsewhere plain operations, one
  graph for `torch.compile`. It is no part of the kernel: what that would save has not been measured.
- Losses over tokens: one pass that keeps the slope (`torch_impl.one_pass`), on the CPU some rows at a time.
- Log-probabilities and entropies: chunks of positions (`torch_impl.softmax`), whatever the device.
- Losses of pairs and sequences: plain operations, which for so few numbers are faster than one pass.
- A mask drops numbers by their bits on the CPU, where a gradient is wanted from 65,536 numbers on
  (`torch_impl.precision`).
- From hidden states and the output head, without the logits of all tokens: `torch_impl.linear`.

Losses over tokens and log-probabilities have a gradient that is written down: it cannot be differentiated
again, and forward mode is refused. While `torch.compile` traces, and on tensors that are not plain, rows are
not cut and no kernel is taken.
"""
