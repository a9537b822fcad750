"""Wish for instances, start them, watch them and stop them."""
