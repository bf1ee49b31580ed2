"""One file per video decoder behind one interface (reader.py), and what packets tell without decoding (packets.py).

May import numpy and the decoder's library. `vidmae/footage/open_video.py` is the door: the others import from there.
"""
