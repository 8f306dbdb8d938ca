"""Ranges in the files of other tools: which formats there are, and which of them a file has, by its content."""
