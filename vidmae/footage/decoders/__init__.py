"""One file per video decoder behind one interface (reader.py), and what packets tell without decoding (packets.py).

May import nothing of the other rooms.
"""
