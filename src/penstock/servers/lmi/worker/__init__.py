"""The process that runs a user's handler: started by `workers.py`, it speaks frames over a socket and nothing else.

It must import nothing outside the standard library but `penstock.servers.lifeline` and `djl_python`: its interpreter may be another
environment's.
"""
