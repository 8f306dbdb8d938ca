"""What is known of int8 models as a page to show: read, put side by side, drawn, rendered."""
