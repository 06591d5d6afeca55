"""The load: what is sent, who sends it, and what must come back."""
