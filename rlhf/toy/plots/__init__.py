"""The pictures of the toys, one module per toy; only these import matplotlib."""
