"""Several processes that serve on one port: a parent, which people and systemd know, and its workers.

Each worker is a replica by itself, on the store that all share; the kernel hands each connection to one of them. Parent
and worker talk in lines over the worker's standard input and output: `order` has the words.
"""
