"""Pieces of asyncio that several rooms share; they know nothing of RAP."""
