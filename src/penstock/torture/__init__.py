"""`penstock torture`: a user's client program against every slicing mode and fault, with a verdict each.

Owns the known content, the cases, the verdicts and the report. It must never know how a server is started or an endpoint is made: the
verb (`cli/torture.py`) brings both.
"""
