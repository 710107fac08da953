"""The scripted model server: a vendor cloud on loopback, for the demo and the tests.

It speaks the Anthropic Messages and the OpenAI Chat Completions wire, refuses what the vendors
refuse and keeps a bill of every token it produced. Read `server.py` first, then `brain.py`.
"""
