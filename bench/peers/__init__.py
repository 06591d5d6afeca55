"""Our agent side by side with everything else that a Python user could pick.

Each peer is a program of its own that listens on an SPOP socket, consumes the token of every
NOTIFY with a plain GETDEL, and answers `allow`, `user` and `reason`: no policy, no audit, no
deadline. What a careful user would give it, it has: hiredis, uvloop, unix sockets, silence.
"""
