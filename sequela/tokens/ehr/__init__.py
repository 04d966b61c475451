"""The tokenizer of electronic health records."""
