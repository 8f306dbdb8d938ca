"""What is made of the tree: lists of versions, wheels, the container, the site of the docs, types for editors."""
