"""A replication: claims that were fixed beforehand, what runs say of them, and the page with the verdicts.

May import vidmae, results and page.
"""
