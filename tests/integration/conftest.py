"""Fixtures of the tests that use the network of this machine."""

from ..simulated_rap import empty_key_store, lake, rap, unused_port

__all__ = ["empty_key_store", "lake", "rap", "unused_port"]
