"""What a user's `model.py` imports as `djl_python`: the handler API of DJL Serving 0.23.

Owns the names, signatures and behaviour that handlers rely on. It runs in handler processes only, and must never import anything of the
server; numpy, Pillow and torch are imported where they are needed.
"""

from .inputs import Input
from .outputs import Output
from .pair_list import PairList

__all__ = ["Input", "Output", "PairList"]
