"""The training loops: pretraining, and the cells of a few-shot sweep.

May import all rooms.
"""
