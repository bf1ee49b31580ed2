"""What a process begins with: the setting that keeps bits equal, and how a command ends that nobody caught.

May import nothing of the other rooms.
"""
