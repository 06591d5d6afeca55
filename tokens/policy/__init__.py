"""The policy: what a request must bring, what Redis is asked, what its replies mean. No I/O."""
