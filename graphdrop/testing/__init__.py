"""What tests of graphdrop, and of backends written by others, are made of."""
