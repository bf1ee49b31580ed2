"""What measurements are compared with, and what they are made of."""
