"""What is generated in the documents: ``python -m tests.documents`` writes it anew."""
