"""The scripted model server: a vendor cloud on loopback, for the demo and the tests.

It speaks the wires of Anthropic's Messages and of OpenAI's Chat Completions and Responses, refuses what
the vendors refuse and keeps a bill of every token it produced. Read `server.py` first, then `brain.py`.
"""
