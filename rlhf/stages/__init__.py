"""The stages of the command line, and the frame that they share."""
