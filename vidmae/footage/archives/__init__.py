"""Archives of prepared frames: their layout, their JPEG coder, writing and reading. Others call such files shards.

May import runs and footage.decoders.
"""
