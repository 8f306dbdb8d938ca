"""Pictures beside the originals: preprocessing bit by bit, and the server's answers."""
