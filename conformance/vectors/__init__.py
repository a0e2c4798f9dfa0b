"""The suite's cases as files that any language can read: inputs, and the answers that are permitted."""
