"""What a user's `model.py` imports as `djl_python`: the handler API of DJL Serving 0.23, and the sessions that came later.

Owns the names, signatures and behaviour that handlers rely on. It runs in handler processes, but for the sessions that the server keeps
for its own text generation, and must never import anything of the server; numpy, Pillow and torch are imported where they are needed.
"""

from .inputs import Input
from .outputs import Output
from .pair_list import PairList
from .session_manager import Session, SessionManager

__all__ = ["Input", "Output", "PairList", "Session", "SessionManager"]
