"""The kept weights of layers fitted by least squares to what the dense network computes."""
