"""What checks this project itself. A regular package: some libraries install a `tests` of their own."""
