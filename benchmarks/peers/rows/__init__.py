"""What is compared: one module each, with its question in the first line."""
