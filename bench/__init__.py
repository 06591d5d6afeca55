"""What a checkout can measure beyond `kat bench`; see bench/README.md."""
