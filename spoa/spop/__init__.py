"""SPOP, the protocol between HAProxy and its agents: bytes in, values out.

Pure by law: no sockets, no clock, no log, no Redis, no tokens. Specified by HAProxy's
doc/SPOE.txt; where HAProxy's source differs from it, the source wins and a recorded vector
(tests/spop/vectors) proves it.
"""
