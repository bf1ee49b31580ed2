"""From a file to a batch: which clip comes when, how it is cut out, and the processes that read ahead.

May import settings, runs, footage and labels.
"""
