"""What the gate is shown with: a portal that issues tokens, and an application behind the gate.

The portal is for readers who write their own: how to issue stands in portal.py and returning.py.
Neither is a product. Both need the extra `demo`.
"""
