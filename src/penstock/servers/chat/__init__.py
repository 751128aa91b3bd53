"""What chats have in common, whichever contract asks for them: calls of functions in a model's text, and the schemas that make it call.

It must never know a contract's wording.
"""
