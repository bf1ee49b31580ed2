"""Where an encoder looks, and whether at what moves.

May import all rooms but train; of insight also what lies beside this folder.
"""
